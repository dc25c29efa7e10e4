// The page: theme, runs, and what a click on a finding shows. Without this script all text is there.

const root = document.documentElement;

/** Storage may be forbidden for pages opened from disk; then the choice lasts as long as the page. */
function remembered(value) {
  try {
    if (value) localStorage.setItem("nndiag-theme", value);
    return localStorage.getItem("nndiag-theme");
  } catch {
    return null;
  }
}

class Runs {
  constructor() {
    this.started = new Map(); // element -> what was drawn in it
  }

  /** Draw a run, once, when it is first seen. */
  start(section) {
    if (this.started.has(section) || section.open === false) return this.started.get(section);
    const data = JSON.parse(section.querySelector("script[type='application/json']").textContent);
    const run = data ? this.drawn(section, data) : null;
    this.started.set(section, run);
    return run;
  }

  drawn(section, data) {
    const axis = new Axis(data);
    const host = section.querySelector(".tracks");
    const plots = element("div", "plots");
    const tracks = data.tracks.map((track) => ({ ...track, lines: track.lines.map(opened) }));
    const add = (track) =>
      new Plot(plots, axis, {
        ...track,
        note: section.querySelector(`[data-note="${track.key}"]`)?.textContent ?? "",
        height: track.key === "loss" ? 240 : 76,
        marks: track.key === "loss" ? data.marks : [],
        onMark: (mark) => mark && go(`${section.id}-finding-${mark.label}`),
      });
    host.append(this.tools(axis, tracks.filter((track) => !track.shown), add), plots);
    for (const track of tracks) if (track.shown) add(track);
    const foot = element("div", "track foot");
    foot.append(element("div", "side"), element("div", "plot"));
    host.append(foot);
    new Strip(foot.lastChild, axis);
    const layers = section.querySelector(".heat");
    const heat = data.layers && layers ? new HeatMap(layers, axis, data.layers) : null;
    new ResizeObserver(() => axis.changed()).observe(host);
    axis.changed();
    return { axis, heat };
  }

  /** How to zoom, a way back, and the series that are drawn on demand. */
  tools(axis, others, add) {
    const tools = element("div", "tools");
    const all = element("button", "toggle", "show all steps", { type: "button" });
    all.addEventListener("click", () => axis.reset());
    axis.views.push({ draw: () => (all.disabled = !axis.isZoomed), drawCursor: () => {} });
    if (others.length) tools.append(element("span", "hint", "also:"));
    for (const track of others) {
      const button = element("button", "toggle", track.title, { type: "button", "aria-pressed": "false" });
      let plot = null;
      button.addEventListener("click", () => {
        if (plot) {
          plot.root.remove();
          axis.views.splice(axis.views.indexOf(plot), 1);
          plot = null;
        } else plot = add(track);
        button.setAttribute("aria-pressed", String(plot !== null));
        axis.changed();
      });
      tools.append(button);
    }
    tools.append(element("span", "hint", "drag to zoom, double click for all"), all);
    return tools;
  }

  each(work) {
    for (const run of this.started.values()) if (run) work(run);
  }
}

function opened(line) {
  return { ...line, x: unpack(line.x), y: unpack(line.y) };
}

/** Open what holds an element, and scroll to it. */
function go(id) {
  const target = document.getElementById(id);
  if (!target) return;
  const details = target.closest("details");
  if (details) details.open = true;
  history.replaceState(null, "", `#${id}`);
  target.scrollIntoView({ block: "start" });
}

/** A click on a finding's curve: its steps in the main curves, its layer in the heat map. */
function showFinding(link, section, runs) {
  const run = runs.start(section);
  if (!run) return;
  const { start, end, heat, row } = link.dataset;
  if (start) run.axis.show(Number(start), Number(end));
  if (heat && run.heat) {
    run.heat.show(heat);
    if (row) run.heat.choose(Number(row));
  }
  section.querySelector(heat && run.heat ? ".layers" : ".curves").scrollIntoView({ block: "start" });
}

function sortable(table) {
  const body = table.tBodies[0];
  table.querySelectorAll("th").forEach((head, column) => {
    const button = head.querySelector("button");
    button?.addEventListener("click", () => {
      const up = head.getAttribute("aria-sort") !== "ascending";
      const value = (row) => row.cells[column].dataset.sort ?? row.cells[column].textContent;
      const order = (a, b) => value(a).localeCompare(value(b), "en", { numeric: false });
      const numeric = (a, b) => Number(value(a)) - Number(value(b));
      const by = button.dataset.sort === "number" ? numeric : order;
      const rows = [...body.rows].sort((a, b) => (up ? by(a, b) : by(b, a)));
      body.append(...rows);
      for (const other of table.querySelectorAll("th")) other.removeAttribute("aria-sort");
      head.setAttribute("aria-sort", up ? "ascending" : "descending");
    });
  });
}

function themed(runs) {
  const dark = matchMedia("(prefers-color-scheme: dark)");
  const button = document.getElementById("theme");
  const apply = (theme) => {
    root.dataset.theme = theme;
    button.textContent = theme === "dark" ? "light" : "dark";
    runs.each((run) => run.axis.changed());
  };
  button.hidden = false;
  button.addEventListener("click", () => {
    const theme = root.dataset.theme === "dark" ? "light" : "dark";
    remembered(theme);
    apply(theme);
  });
  dark.addEventListener("change", () => remembered() ?? apply(dark.matches ? "dark" : "light"));
  apply(remembered() ?? (dark.matches ? "dark" : "light"));
}

root.classList.add("js");
const runs = new Runs();
themed(runs);
for (const table of document.querySelectorAll("table.runs")) sortable(table);
for (const section of document.querySelectorAll(".run")) {
  section.addEventListener("toggle", () => runs.start(section));
  for (const link of section.querySelectorAll("a.curve")) {
    link.addEventListener("click", (event) => {
      event.preventDefault();
      showFinding(link, section, runs);
    });
  }
  runs.start(section);
}
for (const link of document.querySelectorAll("a[href^='#']:not(.curve)")) {
  link.addEventListener("click", (event) => {
    event.preventDefault();
    go(link.getAttribute("href").slice(1));
  });
}
if (location.hash) go(decodeURIComponent(location.hash.slice(1)));
let shut = []; // what was closed before paper asked for everything
addEventListener("beforeprint", () => {
  shut = [...document.querySelectorAll("details:not([open])")];
  for (const details of shut) details.open = true;
});
addEventListener("afterprint", () => {
  for (const details of shut) details.open = false;
});
