// Layers over time: a row for each layer in forward order, a column for some steps, colour for size.

const BROKEN = ["", "NaN", "infinity", "-infinity"]; // what a cell says of values not finite
const ROW = 16; // pixels
const FIT = 520; // pixels for all rows in the compact view

/** `0.1`, or `0.1 to 0.9` where a cell holds several values, with what is not finite. */
function rangeText(low, high, broken = 0) {
  const told = low === high ? numberText(low) : `${numberText(low)} to ${numberText(high)}`;
  if (!broken) return Number.isNaN(low) ? "not measured" : told;
  return Number.isNaN(low) ? BROKEN[broken] : `${told}, and ${BROKEN[broken]}`;
}

class HeatMap {
  constructor(host, axis, layers) {
    Object.assign(this, { host, axis, layers, selected: -1, query: "", drawn: null });
    this.maps = layers.maps.map((map) => this.opened(map));
    this.map = this.maps[0];
    this.compact = layers.names.length > 48;
    this.build();
    axis.views.push(this);
    this.arrange();
  }

  opened(map) {
    const low = unpack(map.low);
    const broken = map.broken ? unpack(map.broken) : null;
    const told = (cell) => !Number.isNaN(low[cell]) || broken?.[cell];
    const has = (layer) => range(map.columns).some((at) => told(layer * map.columns + at));
    return {
      ...map,
      measured: range(this.layers.names.length).filter(has), // a ReLU has no gradient, say
      low,
      high: map.high ? unpack(map.high) : low,
      broken,
      starts: unpack(map.starts),
      ends: unpack(map.ends),
      first: unpack(map.first),
      last: unpack(map.last),
    };
  }

  build() {
    const tools = element("div", "tools");
    tools.append(this.measures());
    if (this.layers.names.length > 12) tools.append(this.filter(), this.density());
    this.scale = element("div", "scale");
    this.status = element("p", "sr", "", { "aria-live": "polite" });
    this.frame = element("div", "heat-frame");
    this.list = element("ul", "rows", "", { role: "listbox", "aria-label": "Layers" });
    this.plot = element("div", "cells", "", { tabindex: "0", role: "application" });
    this.canvas = element("canvas");
    this.over = element("canvas", "over");
    this.tip = element("div", "tip", "", { hidden: "" });
    this.plot.append(this.canvas, this.over);
    this.frame.append(this.list, this.plot);
    const foot = element("div", "heat-foot");
    this.detail = element("div", "detail");
    this.host.append(tools, this.frame, foot, this.scale, this.detail, this.status, this.tip);
    new Strip(foot, this.axis);
    this.fill();
    gestures(this.plot, this.axis, {
      step: (x) => this.stepAt(x),
      hover: (step, x, y) => this.hover(step, x, y),
      leave: () => this.leave(),
      select: (range) => {
        this.selection = range;
        this.drawCursor();
      },
      click: (_, y) => this.choose(this.rows[this.rowAt(y)] ?? -1),
      keys: {
        ArrowDown: () => this.choose(this.next(1)),
        ArrowUp: () => this.choose(this.next(-1)),
      },
    });
  }

  measures() {
    const group = element("div", "choice", "", { role: "group", "aria-label": "What is shown" });
    this.buttons = this.maps.map((map) => {
      const button = element("button", "", map.title, { type: "button" });
      button.addEventListener("click", () => this.show(map.key));
      group.append(button);
      return button;
    });
    return group;
  }

  filter() {
    const input = element("input", "", "", {
      type: "search",
      placeholder: "filter layers",
      "aria-label": "Filter layers by name or kind",
    });
    input.addEventListener("input", () => {
      this.query = input.value.toLowerCase();
      this.arrange();
    });
    return input;
  }

  density() {
    const button = element("button", "toggle", "fit all rows", { type: "button" });
    button.setAttribute("aria-pressed", String(this.compact));
    button.addEventListener("click", () => {
      this.compact = !this.compact;
      button.setAttribute("aria-pressed", String(this.compact));
      this.arrange();
    });
    return button;
  }

  /** The names of all layers, once; which of them stand where is `arrange`'s business. */
  fill() {
    this.items = this.layers.labels.map((label, index) => {
      const item = element("li", "", "", {
        role: "option",
        tabindex: "-1",
        "aria-selected": "false",
        "aria-label": this.layers.names[index], // the text of a row without room is not shown
      });
      for (const number of this.layers.marked[index]) item.append(element("b", "tag", String(number)));
      item.append(element("span", "", label, { title: this.layers.names[index] }));
      item.addEventListener("click", () => this.choose(index));
      item.addEventListener("keydown", (event) => this.key(event));
      return item;
    });
    this.list.append(...this.items);
  }

  key(event) {
    const by = { ArrowDown: 1, ArrowUp: -1 }[event.key];
    if (!by) return;
    event.preventDefault();
    const index = this.next(by);
    this.choose(index);
    this.items[index]?.focus();
  }

  next(by) {
    const at = this.rows.indexOf(this.selected);
    return this.rows[Math.min(Math.max(at + by, 0), this.rows.length - 1)] ?? -1;
  }

  show(key) {
    this.map = this.maps.find((map) => map.key === key) ?? this.map;
    this.arrange();
    this.choose(this.selected);
  }

  /** Which rows are shown, how high they are, and which names have room. */
  arrange() {
    const { names, kinds, marked } = this.layers;
    const fits = (index) => `${names[index]} ${kinds[index]}`.toLowerCase().includes(this.query);
    this.rows = this.map.measured.filter(fits);
    const fit = Math.min(ROW, Math.max(2, Math.floor(FIT / Math.max(1, this.rows.length))));
    this.height = this.compact ? fit : ROW;
    const small = this.height < 12;
    this.list.classList.toggle("compact", small);
    const shown = new Set(this.rows);
    let free = 0;
    let row = 0;
    this.items.forEach((item, index) => {
      item.hidden = !shown.has(index);
      if (item.hidden) return;
      item.style.height = `${this.height}px`;
      const top = row * this.height;
      const wanted = !small || marked[index].length || index === this.selected || row === 0;
      const room = !small || top >= free || index === this.selected;
      item.classList.toggle("quiet", !(wanted && room));
      if (wanted && room) free = top + 15;
      row += 1;
    });
    const first = this.items[this.selected >= 0 ? this.selected : this.rows[0]];
    for (const item of this.items) item.tabIndex = item === first ? 0 : -1;
    this.buttons.forEach((button, i) => {
      button.setAttribute("aria-pressed", String(this.maps[i] === this.map));
    });
    this.plot.setAttribute(
      "aria-label",
      `${this.map.title} of ${this.rows.length} layers over steps. Up and down choose a layer.`,
    );
    this.axis.changed();
  }

  /** Ends of the colour scale over all layers: 0 to 1, or the extremes that are above 0. */
  limits() {
    if (!this.map.log) return [0, 1];
    if (!this.map.limits) {
      let [low, high] = [Infinity, 0];
      for (const value of this.map.low) if (value > 0 && value < low) low = value;
      for (const value of this.map.high) if (value > high && value < Infinity) high = value;
      this.map.limits = high > 0 ? [Math.min(low, high), high] : [1, 1];
    }
    return this.map.limits;
  }

  /** One pixel for each cell, in an order that a canvas can stretch. */
  picture() {
    const { map, rows } = this;
    const stops = token("--heat").split(/\s+/).map(rgb);
    const [zero, broken] = [rgb(token("--heat-zero")), rgb(token("--broken"))];
    const [low, high] = this.limits();
    const span = Math.log(high / low) || 1;
    const image = new ImageData(Math.max(1, map.columns), Math.max(1, rows.length));
    rows.forEach((layer, row) => {
      for (let column = 0; column < map.columns; column++) {
        const cell = layer * map.columns + column;
        const value = map.high[cell];
        let colour = null;
        if (map.broken?.[cell]) colour = broken;
        else if (map.log && value <= 0) colour = zero;
        else if (!Number.isNaN(value)) {
          const share = map.log ? Math.log(value / low) / span : value;
          colour = mixed(stops, Math.min(Math.max(share, 0), 1));
        }
        if (colour) image.data.set([...colour, 255], 4 * (row * map.columns + column));
      }
    });
    const canvas = document.createElement("canvas");
    [canvas.width, canvas.height] = [image.width, image.height];
    canvas.getContext("2d").putImageData(image, 0, 0);
    return canvas;
  }

  draw() {
    const width = this.plot.clientWidth;
    if (!width) return;
    const height = Math.max(1, this.rows.length * this.height);
    const context = prepared(this.canvas, width, height);
    const key = [this.map.key, this.query, document.documentElement.dataset.theme].join("|");
    if (this.drawn !== key) [this.cells, this.drawn] = [this.picture(), key];
    context.imageSmoothingEnabled = false;
    context.beginPath();
    context.rect(0, 0, width, height);
    context.clip();
    const { starts, ends, columns } = this.map;
    for (let column = 0; column < columns; column++) {
      const left = Math.round(this.x(starts[column], width));
      const right = Math.max(left + 1, Math.round(this.x(ends[column], width)));
      if (right < 0 || left > width) continue;
      context.drawImage(this.cells, column, 0, 1, this.rows.length, left, 0, right - left, height);
    }
    if (this.height >= 8) {
      context.fillStyle = token("--page");
      for (let row = 1; row < this.rows.length; row++) {
        context.fillRect(0, row * this.height - 0.5, width, 1);
      }
    }
    this.drawScale();
  }

  // Cells fill their canvas, while tracks leave room at both sides: so both lie under each other.
  x(step, width) {
    return this.axis.x(step, width + LEFT + RIGHT) - LEFT;
  }

  stepAt(x) {
    return this.axis.step(x + LEFT, this.plot.clientWidth + LEFT + RIGHT);
  }

  drawScale() {
    const [low, high] = this.limits();
    const stops = token("--heat").split(/\s+/);
    const ramp = element("i", "ramp");
    for (const colour of stops) {
      ramp.append(element("i", "stop"));
      ramp.lastChild.style.background = colour;
    }
    const whole = element("span", "", this.map.log ? numberText(low) : "0");
    whole.append(ramp, this.map.log ? `${numberText(high)}, log scale` : "1");
    this.scale.replaceChildren(whole);
    const also = [["nothing", "not measured"], ["broken", "NaN or infinite"]];
    if (this.map.log) also.unshift(["zero", "0"]);
    for (const [name, text] of also) {
      const chip = element("span");
      chip.append(element("i", `stop ${name}`), text);
      this.scale.append(chip);
    }
    const without = this.layers.names.length - this.map.measured.length;
    const rest = without ? `; ${without} of ${this.layers.names.length} layers have no ${this.map.title}` : "";
    this.scale.append(element("span", "end", `a cell shows its highest value${rest}`));
  }

  rowAt(y) {
    return Math.floor(y / this.height);
  }

  columnAt(step) {
    const { starts, ends } = this.map;
    const column = firstFrom(ends, step);
    return column < starts.length && starts[column] <= step ? column : -1;
  }

  hover(step, x, y) {
    this.hovered = this.rows[this.rowAt(y)] ?? -1;
    this.axis.point(step);
    if (this.hovered < 0) return this.leave();
    this.tip.replaceChildren(...this.told(this.hovered, step));
    this.tip.hidden = false;
    const box = this.host.getBoundingClientRect();
    const at = this.plot.getBoundingClientRect();
    const left = at.left - box.left + x + 14;
    const flipped = left + this.tip.offsetWidth > box.width;
    this.tip.style.left = `${Math.max(0, flipped ? left - this.tip.offsetWidth - 28 : left)}px`;
    this.tip.style.top = `${at.top - box.top + y + 14}px`;
  }

  /** Layer, step range and value of a cell. */
  told(layer, step) {
    const column = this.columnAt(step);
    const { names, kinds } = this.layers;
    const steps = this.axis.steps;
    const told = [element("b", "", names[layer].slice(-80))];
    if (kinds[layer]) told.push(element("span", "", kinds[layer]));
    if (column < 0) return [...told, element("p", "", `step ${steps.text(step)}: not measured`)];
    const cell = layer * this.map.columns + column;
    const [first, last] = [this.map.first[column], this.map.last[column]].map((s) => steps.text(s));
    const when = first === last ? `step ${first}` : `steps ${first}-${last}`;
    const value = rangeText(this.map.low[cell], this.map.high[cell], this.map.broken?.[cell]);
    return [...told, element("p", "", `${when}: ${value}`)];
  }

  leave() {
    this.hovered = -1;
    this.tip.hidden = true;
    this.axis.point(null);
  }

  drawCursor() {
    const width = this.plot.clientWidth;
    if (!width) return;
    const context = prepared(this.over, width, Math.max(1, this.rows.length * this.height));
    for (const [layer, name] of [[this.hovered, "--soft"], [this.selected, "--ink"]]) {
      const row = this.rows.indexOf(layer ?? -1);
      if (row < 0) continue;
      context.strokeStyle = token(name);
      context.strokeRect(0.5, row * this.height - 0.5, width - 1, this.height + 0.5);
    }
    const height = this.rows.length * this.height;
    if (this.selection) {
      const [a, b] = this.selection;
      context.fillStyle = token("--select");
      context.fillRect(Math.min(a, b), 0, Math.abs(b - a), height);
    }
    if (this.axis.cursor === null) return;
    context.fillStyle = token("--ink");
    context.fillRect(Math.round(this.x(this.axis.cursor, width)), 0, 1, height);
  }

  /** Draw the series of a layer under the map. */
  choose(index) {
    this.selected = index;
    this.items.forEach((item, at) => item.setAttribute("aria-selected", String(at === index)));
    if (this.line) this.axis.views.splice(this.axis.views.indexOf(this.line), 1);
    this.line = null;
    this.detail.replaceChildren();
    if (index >= 0) {
      this.line = this.plotOf(index);
      this.status.textContent = `${this.layers.names[index]} chosen`;
    }
    this.arrange();
  }

  plotOf(index) {
    const { map } = this;
    const cut = (values) => values.slice(index * map.columns, (index + 1) * map.columns);
    const low = cut(map.low);
    const line = {
      label: this.layers.labels[index],
      x: map.first.map((first, column) => (first + map.last[column]) / 2),
      starts: map.starts,
      ends: map.ends,
      low,
      high: map.high === map.low ? low : cut(map.high),
      broken: map.broken && cut(map.broken),
    };
    return new Plot(this.detail, this.axis, { title: map.title, lines: [line], log: map.log });
  }
}

function range(count) {
  return Array.from({ length: count }, (_, index) => index);
}

function rgb(hex) {
  return [1, 3, 5].map((at) => parseInt(hex.slice(at, at + 2), 16));
}

function mixed(stops, share) {
  const place = share * (stops.length - 1);
  const below = Math.min(Math.floor(place), stops.length - 2);
  return stops[below].map((a, i) => a + (stops[below + 1][i] - a) * (place - below));
}
