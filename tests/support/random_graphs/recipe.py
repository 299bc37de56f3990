"""What a random training graph is made of: one idiom of each kind, drawn by a seed, written down to be built again."""

from __future__ import annotations

import random
from collections.abc import Callable, Iterator
from dataclasses import dataclass, fields, replace

WHOLE = ("slim", "slim_unfused", "slim_debias", "tf_layers", "tf_layers_unfused", "tf_keras", "tf_keras_unfused")
"""Layers that a library writes: moments, formula and place of the update are its own."""
OF_OBJECTS = ("ema", "ema_num_updates", "ema_debias")
"""Averages whose variables come into being with the update."""

CHOICES: dict[str, tuple[str, ...]] = {
    "network": ("conv", "dense", "mixed", "nchw"),
    "moments": (
        "nn_moments keep_dims fused by_hand squared_difference minus_square sufficient sufficient_shifted weighted "
        "towers towers_squares stacked two_steps counted reciprocal_count matmul flattened half reduce_variance "
        "reduce_std product stop_gradient_shift einsum "
        "double pooled joined"
    ).split(),
    "formula": (
        "nn divide rsqrt scale_shift power no_beta no_gamma plain split_product std_first largest_epsilon "
        "gamma_plus_one gamma_exponent no_nan one_op epsilon_outside"
    ).split(),
    "average": (
        "assign_sub assign_add assign_mix assign_lerp moving_average moving_average_debias ema ema_num_updates "
        "ema_debias ema_of_assigned decay_variable decay_schedule cumulative never unbiased by_index "
        "object_of_assigned"
    ).split()
    + list(WHOLE),
    "mode": (
        "train towers eval placeholder default_true default_false variable keep_prob string negated constant step "
        "integer unless_frozen learning_phase"
    ).split(),
    "choice": "statistics outputs where arithmetic each case branch".split(),
    "updating": ("apart", "cond", "inside", "decay_off"),
    "wiring": (
        "collection group create_train_op dependencies own_collection tuple barrier nobody early loss_identity "
        "constructor wrong_scope own_collection_missed separate_call some_only loss_dependency"
    ).split(),
    "optimizer": "gradient momentum adam rmsprop by_hand clipped two accumulate gathered cond_apply".split(),
    "loop": ("none", "none", "none", "while"),
    "saver": ("all", "all", "all", "trainable", "exclude"),
    "names": ("moving", "population", "short", "numbered"),
    "decoy": (
        "none instance layer group weight_standardised stored_input minibatch_deviation weight_average l2 "
        "loss_average whitened_input running_return"
    ).split(),
    "resource": ("no", "yes"),
    "control": ("v1", "v2"),
    "replicas": ("one", "one", "one", "two"),
}
"""Idioms of each kind; the first of each is the plainest."""


@dataclass(frozen=True)
class Recipe:
    """One idiom of each kind of `CHOICES`, and a seed for numbers."""

    network: str = "conv"
    moments: str = "nn_moments"
    formula: str = "nn"
    average: str = "assign_sub"
    mode: str = "train"
    choice: str = "statistics"
    updating: str = "apart"
    wiring: str = "collection"
    optimizer: str = "gradient"
    loop: str = "none"
    saver: str = "all"
    names: str = "moving"
    decoy: str = "none"
    resource: str = "no"
    control: str = "v1"
    replicas: str = "one"
    layers: int = 2
    seed: int = 0

    def __str__(self) -> str:
        """The expression that builds it again, without what is plainest."""
        told = [f"{f.name}={value!r}" for f in fields(self) if (value := getattr(self, f.name)) != f.default]
        return f"Recipe({', '.join(told)})"

    @property
    def switched(self) -> bool:
        """Whether a tensor decides the mode."""
        return self.mode not in ("train", "towers", "eval")

    @property
    def partly(self) -> bool:
        """Whether a training step runs the updates of the first layer only."""
        return self.wiring == "some_only" and self.updating != "inside"


def draw(seed: int) -> Recipe:
    """The recipe of a seed: idioms drawn at random until they go together."""
    source = random.Random(seed)  # noqa: S311 - no secret
    while True:
        drawn = {name: source.choice(choices) for name, choices in CHOICES.items()}
        recipe = Recipe(**drawn, layers=source.randint(1, 3), seed=seed)
        if goes_together(recipe):
            return recipe


def goes_together(recipe: Recipe) -> bool:
    """Whether the idioms make one script that somebody could have written, and that TensorFlow builds."""
    return not any(_clashes(recipe))


def _clashes(r: Recipe) -> Iterator[bool]:
    whole = r.average in WHOLE
    # a kind that does not come into play is the plainest, so that each graph has one recipe
    yield whole and (r.moments != "nn_moments" or r.formula != "nn" or r.names != "moving" or r.network == "nchw")
    yield not r.switched and r.choice != "statistics"
    yield r.control == "v2" and (r.resource == "no" or not (r.switched or r.optimizer == "cond_apply"))
    yield whole and (r.choice != "statistics" or r.updating in ("cond", "decay_off"))
    yield not r.switched and r.updating in ("cond", "decay_off")
    yield r.average == "never" and (r.updating != "apart" or r.wiring != "nobody" or r.mode == "eval")
    yield r.mode == "eval" and (r.updating != "apart" or r.wiring != "nobody" or r.average in OF_OBJECTS)
    yield r.mode == "eval" and r.moments != "nn_moments"
    yield r.mode == "eval" and r.average not in ("assign_sub", *WHOLE)
    yield r.updating == "inside" and r.wiring != "collection"
    yield r.updating == "inside" and r.average in ("tf_layers", "tf_layers_unfused", "tf_keras", "tf_keras_unfused")
    yield r.updating == "inside" and r.choice in ("where", "arithmetic")
    yield r.average in OF_OBJECTS and r.choice in ("each", "case") and r.updating == "inside"
    yield r.average in (*OF_OBJECTS, "cumulative") and r.updating == "decay_off"
    yield r.average in OF_OBJECTS and r.names != "moving"
    yield r.average == "ema_of_assigned" and r.updating == "decay_off"
    # what a moment needs
    yield r.moments == "fused" and (r.network in ("dense", "nchw", "mixed") or r.formula != "nn")
    yield r.moments == "fused" and (r.choice != "outputs" if r.switched else False)
    yield r.moments in ("two_steps", "pooled") and r.network in ("dense", "mixed", "nchw")
    yield r.moments in ("matmul", "einsum") and r.network == "nchw"
    yield r.moments == "flattened" and r.network == "nchw"
    yield r.moments == "keep_dims" and r.network == "nchw"
    yield r.average == "by_index" and r.moments == "keep_dims"
    yield r.formula == "one_op" and (r.network != "conv" or r.moments in ("keep_dims", "fused"))
    yield r.choice == "branch" and (r.updating != "inside" or r.moments == "fused")
    yield r.average == "object_of_assigned" and r.updating == "decay_off"
    yield r.mode == "learning_phase" and r.control == "v2"
    yield r.replicas == "two" and (r.loop != "none" or r.updating == "inside" or whole or r.mode == "eval")
    yield r.replicas == "two" and (r.average in OF_OBJECTS or r.decoy in ("running_return", "loss_average"))
    yield r.replicas == "two" and (r.average == "cumulative" or r.choice == "branch")
    # a training step in a loop takes its data apart by itself
    in_loop = r.loop == "while"
    yield in_loop and r.optimizer not in ("gradient", "by_hand")
    yield in_loop and r.wiring not in ("collection", "group", "dependencies", "nobody", "loss_identity", "some_only")
    yield in_loop and (r.mode not in ("train", "placeholder", "default_false") or whole)
    yield in_loop and r.average not in ("assign_sub", "assign_add", "assign_mix", "assign_lerp", "decay_variable")
    yield in_loop and (r.resource == "no" or r.updating in ("cond", "inside") or r.control == "v2")
    yield in_loop and r.decoy not in ("none", "layer", "instance")
    # a step of several runs
    yield r.optimizer in ("two", "gathered", "accumulate") and r.wiring in ("create_train_op", "tuple", "barrier")
    yield r.optimizer == "accumulate" and r.resource == "no"
    yield r.optimizer == "by_hand" and r.wiring in ("create_train_op", "constructor", "early")
    yield r.optimizer == "cond_apply" and r.wiring in ("create_train_op", "constructor")
    yield r.optimizer == "gathered" and r.wiring == "constructor"
    yield r.wiring == "some_only" and r.layers < 2
    yield r.saver != "all" and (r.mode == "eval" or r.average == "never" or r.wiring not in _WIRED)
    yield r.average.startswith("tf_keras") and r.control == "v2" and r.mode == "string"


_WIRED = frozenset("collection group create_train_op dependencies own_collection tuple barrier".split())


def smallest(recipe: Recipe, fails: Callable[[Recipe], bool]) -> Recipe:
    """The recipe with as many plain idioms as still fail."""
    plain = Recipe()
    for _ in range(2):
        for field in fields(recipe):
            simpler = replace(recipe, **{field.name: getattr(plain, field.name)})
            if simpler != recipe and field.name != "seed" and goes_together(simpler) and fails(simpler):
                recipe = simpler
    return recipe


def wired_by_construction(recipe: Recipe) -> bool:
    """Whether a training step runs the updates of all layers."""
    if recipe.mode == "eval" or recipe.average == "never":
        return False
    return recipe.updating == "inside" or recipe.wiring in _WIRED
