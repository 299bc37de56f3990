"""The registry of rules, in code order, and nothing else. A rule that is not listed here does not exist."""

from __future__ import annotations

from bncheck.rules import (
    bn101_never_moved,
    bn102_some_layers_never_moved,
    bn103_init_share_too_high,
    bn104_one_of_pair_moved,
    bn105_non_finite,
    bn106_negative_variance,
    bn107_dead_channels,
    bn108_statistics_missing,
    bn109_vectors_swapped,
    bn110_exploding_variance,
    bn111_low_precision_statistics,
    bn112_collapsed_gamma,
    bn113_half_applied_debias,
    bn114_averaged_weights_stale_statistics,
    bn115_checkpoint_graph_mismatch,
    bn116_statistics_equal_reference,
    bn403_per_tensor_range_collapse,
    bn404_dead_channel_fold_scale,
    bn405_bias_saturated,
    bn406_not_folded,
)
from bncheck.rules._rule import Rule

RULES: tuple[Rule, ...] = (
    bn101_never_moved.check,
    bn102_some_layers_never_moved.check,
    bn103_init_share_too_high.check,
    bn104_one_of_pair_moved.check,
    bn105_non_finite.check,
    bn106_negative_variance.check,
    bn107_dead_channels.check,
    bn108_statistics_missing.check,
    bn109_vectors_swapped.check,
    bn110_exploding_variance.check,
    bn111_low_precision_statistics.check,
    bn112_collapsed_gamma.check,
    bn113_half_applied_debias.check,
    bn114_averaged_weights_stale_statistics.check,
    bn115_checkpoint_graph_mismatch.check,
    bn116_statistics_equal_reference.check,
    bn403_per_tensor_range_collapse.check,
    bn404_dead_channel_fold_scale.check,
    bn405_bias_saturated.check,
    bn406_not_folded.check,
)
