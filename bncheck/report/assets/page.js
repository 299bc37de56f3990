"use strict";
(() => {
  const all = (selector, within = document) => [...within.querySelectorAll(selector)];
  const json = (id) => JSON.parse(document.getElementById(id).textContent);
  const root = document.documentElement;

  // A page in a frame without storage, or opened from a file, may be refused it.
  const stored = (value) => {
    try {
      if (value === undefined) return localStorage.getItem("bncheck-theme") || "";
      if (value) localStorage.setItem("bncheck-theme", value);
      else localStorage.removeItem("bncheck-theme");
    } catch { /* then the choice lasts as long as the page */ }
    return "";
  };
  const dress = (theme) => { if (theme) root.dataset.theme = theme; else delete root.dataset.theme; };
  const chosen = ["light", "dark"].includes(stored()) ? stored() : "";
  dress(chosen);
  for (const fieldset of all("fieldset.theme")) {
    fieldset.hidden = false;
    for (const input of all("input", fieldset)) {
      input.checked = input.value === chosen;
      input.addEventListener("change", () => { dress(input.value); stored(input.value); });
    }
  }

  const options = {
    mode: "vega-lite", renderer: "svg", ast: true, actions: false, defaultStyle: false,
    tooltip: { disableDefaultStyle: true }, logLevel: 1,
  };
  const draw = async (element, id) => {
    try {
      const { view } = await vegaEmbed(element, json(id), options);
      // its element has the words for screen readers
      element.querySelector("svg").setAttribute("aria-hidden", "true");
      element.dataset.drawn = "";
      view.addEventListener("click", (_, item) => {
        const name = item && item.datum && item.datum.n;
        if (name) choose(element.closest("details.report, main"), name);
      });
      return view;
    } catch (error) {
      element.classList.add("failed");
      element.textContent = "This chart could not be drawn; the table holds its numbers. (" + error + ")";
      return null;
    }
  };
  const watch = new IntersectionObserver((entries) => {
    for (const entry of entries) {
      if (!entry.isIntersecting) continue;
      watch.unobserve(entry.target);
      if (entry.target.dataset.spec) draw(entry.target, entry.target.dataset.spec);
      else entry.target.dispatchEvent(new Event("seen"));
    }
  }, { rootMargin: "600px 0px" });
  for (const element of all(".chart[data-spec]")) watch.observe(element);
  // Printing shows what was never scrolled to.
  addEventListener("beforeprint", () => {
    for (const element of all(".chart[data-spec]:not([data-drawn])")) draw(element, element.dataset.spec);
  });

  for (const button of all("button.copy")) {
    button.hidden = false;
    const text = button.parentElement.querySelector("pre");
    button.addEventListener("click", async () => {
      let done = true;
      try {
        await navigator.clipboard.writeText(text.textContent);
      } catch {
        // Frames and files may be refused the clipboard: the old command, else the selection for the user's own keys.
        getSelection().selectAllChildren(text);
        done = document.execCommand("copy");
      }
      button.textContent = done ? "Copied" : "Selected";
      setTimeout(() => { button.textContent = "Copy"; }, 1500);
    });
  }

  const sortable = (table) => {
    const body = table.tBodies[0];
    all("thead th", table).forEach((head, column) => {
      const button = document.createElement("button");
      button.type = "button";
      button.textContent = head.textContent;
      if (head.title) button.title = head.title;
      head.removeAttribute("title");
      head.replaceChildren(button);
      button.addEventListener("click", () => {
        const up = head.getAttribute("aria-sort") !== "ascending";
        for (const other of all("thead th", table)) other.removeAttribute("aria-sort");
        head.setAttribute("aria-sort", up ? "ascending" : "descending");
        const rows = [...body.rows];
        const numbers = rows.some((row) => row.cells[column].dataset.v !== undefined);
        const key = (row) => {
          const cell = row.cells[column];
          if (!numbers) return cell.textContent.trim();
          return cell.dataset.v === undefined ? NaN : cell.dataset.v === "inf" ? Infinity : Number(cell.dataset.v);
        };
        const keyed = rows.map((row) => [key(row), row]);
        const sign = up ? 1 : -1;
        keyed.sort(([a], [b]) => {
          if (!numbers) return sign * a.localeCompare(b, "en", { numeric: true });
          // what is unknown stays at the end, whichever way the rest goes
          if (Number.isNaN(a) || Number.isNaN(b)) return Number.isNaN(a) - Number.isNaN(b);
          return a === b ? 0 : sign * (a < b ? -1 : 1);
        });
        body.append(...keyed.map(([, row]) => row));
      });
    });
  };
  for (const table of all("table.layers")) {
    sortable(table);
    const form = table.closest("section").querySelector("form.filters");
    const [text, kind, told] = [form.querySelector("input"), form.querySelector("select"), form.querySelector("output")];
    const rows = [...table.tBodies[0].rows];
    const names = rows.map((row) => row.querySelector("th").textContent.toLowerCase());
    const apply = () => {
      const wanted = text.value.trim().toLowerCase();
      let shown = 0;
      rows.forEach((row, n) => {
        const state = kind.value === "" || (kind.value === "found" ? "found" in row.dataset : row.dataset.state === kind.value);
        row.hidden = !(state && names[n].includes(wanted));
        shown += !row.hidden;
      });
      told.textContent = shown === rows.length ? "" : `${shown} of ${rows.length} shown`;
    };
    form.hidden = false;
    form.addEventListener("submit", (event) => event.preventDefault());
    text.addEventListener("input", apply);
    kind.addEventListener("change", apply);
  }

  const figure = (value, share) => {
    if (value === null) return "not finite";
    if (share) return Number((100 * value).toPrecision(3)) + " %";
    return String(Number(value.toPrecision(4)));
  };
  const median = (values) => {
    const ordered = [...values].sort((a, b) => a - b);
    const half = ordered.length >> 1;
    return ordered.length % 2 ? ordered[half] : (ordered[half - 1] + ordered[half]) / 2;
  };
  const choosers = new Map();
  const choose = (where, name) => { if (where && choosers.has(where)) choosers.get(where)(name); };
  for (const section of all("section.channels")) {
    const { layers } = json(section.dataset.channels);
    const form = section.querySelector("form.filters");
    const [pick, order, told] = [form.querySelector(".layer"), form.querySelector(".order"), form.querySelector("output")];
    const panels = all(".panel", section).map((panel) => ({ panel, view: null, chart: panel.querySelector(".chart") }));
    layers.forEach((layer, n) => pick.add(new Option(layer.name, String(n))));
    const points = (layer, { dataset }) => {
      const values = layer.values[dataset.series] || [];
      const found = values.map((y, n) => ({ c: layer.kept ? layer.kept[n] : n, y, t: figure(y, "share" in dataset) }));
      const drawn = found.filter((p) => p.y !== null && !("log" in dataset && p.y <= 0));
      if (order.value === "value") drawn.sort((a, b) => b.y - a.y).forEach((p, n) => { p.x = n; });
      else drawn.forEach((p) => { p.x = p.c; });
      return [found, drawn];
    };
    const show = async () => {
      const layer = layers[Number(pick.value)];
      const known = panels.map((entry) => [entry, ...points(layer, entry.panel)]);
      // all before the first is drawn: a chart is drawn as wide as its panel is, and panels share a row
      for (const [{ panel, chart }, found, drawn] of known) {
        panel.hidden = found.length === 0;
        chart.hidden = drawn.length === 0;
      }
      for (const [entry, found, drawn] of known) {
        const { panel, chart } = entry;
        if (panel.hidden) continue;
        const odd = found.length - drawn.length;
        const middle = drawn.length ? "median " + figure(median(drawn.map((p) => p.y)), "share" in panel.dataset) : "";
        panel.querySelector(".told").textContent = [middle, odd ? `${odd} zero or not finite, not drawn` : ""].filter(Boolean).join("; ");
        chart.setAttribute("aria-label", `${panel.querySelector("figcaption").textContent} of ${layer.name}, by channel`);
        if (chart.hidden) continue;
        entry.view = entry.view || await draw(chart, chart.id + "-spec");
        if (entry.view) await entry.view.data("channels", drawn).resize().runAsync();
      }
      const kept = layer.kept ? `the ${layer.kept.length.toLocaleString("en")} farthest of ` : "";
      told.textContent = `${kept}${layer.count.toLocaleString("en")} channels`;
      table(layer);
    };
    const table = (layer) => {
      const holder = section.querySelector(".numbers");
      const element = holder.querySelector("table");
      element.replaceChildren();
      if (!holder.open) return;
      const shown = panels.filter(({ panel }) => !panel.hidden).map(({ panel }) => panel);
      const head = element.createTHead().insertRow();
      for (const title of ["channel", ...shown.map((panel) => panel.querySelector("figcaption").firstChild.textContent.trim())]) {
        const cell = document.createElement("th");
        cell.scope = "col";
        cell.textContent = title;
        head.append(cell);
      }
      const body = element.createTBody();
      const count = layer.kept ? layer.kept.length : layer.count;
      for (let n = 0; n < count; n += 1) {
        const row = body.insertRow();
        row.insertCell().textContent = String(layer.kept ? layer.kept[n] : n);
        for (const panel of shown) row.insertCell().textContent = figure(layer.values[panel.dataset.series][n], "share" in panel.dataset);
      }
    };
    const step = (by) => {
      pick.value = String((Number(pick.value) + by + layers.length) % layers.length);
      show();
    };
    form.hidden = false;
    form.addEventListener("submit", (event) => event.preventDefault());
    pick.addEventListener("change", show);
    order.addEventListener("change", show);
    for (const button of all("button.step", form)) button.addEventListener("click", () => step(Number(button.dataset.step)));
    section.querySelector(".numbers").addEventListener("toggle", () => table(layers[Number(pick.value)]));
    choosers.set(section.closest("details.report, main"), (name) => {
      const found = layers.findIndex((layer) => layer.name === name);
      if (found < 0) return;
      pick.value = String(found);
      show();
      section.scrollIntoView();
    });
    section.addEventListener("seen", show, { once: true });
    watch.observe(section);
  }

  // Which part is being read, in the table of contents.
  const links = new Map(all(".toc a").map((link) => [link.hash.slice(1), link]));
  const parts = [...links.keys()].map((id) => document.getElementById(id)).filter(Boolean);
  const mark = () => {
    const passed = parts.filter((part) => part.getBoundingClientRect().top < innerHeight * 0.3);
    const now = passed.length ? passed[passed.length - 1].id : parts[0].id;
    for (const [id, link] of links) {
      if (id === now) link.setAttribute("aria-current", "true");
      else link.removeAttribute("aria-current");
    }
  };
  if (parts.length) {
    let waiting = false;
    addEventListener("scroll", () => {
      if (waiting) return;
      waiting = true;
      requestAnimationFrame(() => { waiting = false; mark(); });
    }, { passive: true });
    mark();
  }
  const open = () => {
    const part = location.hash ? document.getElementById(decodeURIComponent(location.hash.slice(1))) : null;
    const holder = part && part.closest("details.report");
    if (holder) holder.open = true;
  };
  addEventListener("hashchange", open);
  open();
})();
