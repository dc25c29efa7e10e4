// One track: a few lines over the shared step axis, with its title and its values at the side.

const LANE = 15; // pixels for one row of numbers of findings
const LANES = 3;

class Plot {
  /** `lines` have label, x and y, or x, low and high for a range; `marks` are findings' ranges. */
  constructor(host, axis, { title, lines, log, note = "", height = 84, marks = [], onMark = null }) {
    Object.assign(this, { axis, title, lines, height, marks, onMark });
    this.values = lines.flatMap((line) => (line.y ? [line.y] : [line.low, line.high]));
    this.canBeLog = this.values.every((values) => values.every((value) => !(value <= 0)));
    this.log = log && this.canBeLog;
    this.hidden = new Set();
    this.build(host, note);
    this.lanes = this.arranged();
    axis.views.push(this);
    gestures(this.plot, axis, {
      hover: (step, x, y) => {
        axis.point(this.snapped(step));
        this.plot.classList.toggle("over-mark", this.markAt(x, y) !== null);
      },
      leave: () => axis.point(null),
      select: (range) => this.select(range),
      click: (x, y) => this.onMark?.(this.markAt(x, y)),
      keys: {
        ArrowRight: (event) => this.walk(event.shiftKey ? 10 : 1),
        ArrowLeft: (event) => this.walk(event.shiftKey ? -10 : -1),
        Home: () => axis.point(this.snapped(axis.low)),
        End: () => axis.point(this.snapped(axis.high)),
      },
    });
  }

  build(host, note) {
    this.root = element("div", "track");
    const side = element("div", "side");
    const head = element("div", "track-head");
    head.append(element("h3", "", this.title));
    if (this.canBeLog) head.append(this.logButton());
    side.append(head, this.legend());
    if (note) side.append(element("p", "note", note));
    const isBroken = (line) => (line.y ? !line.y.every(Number.isFinite) : line.broken?.some(Boolean));
    if (this.lines.some(isBroken)) side.append(element("p", "note broken-note", "\u25bc NaN or infinite"));
    this.plot = element("div", "plot", "", {
      tabindex: "0",
      role: "application", // so that a screen reader passes the arrow keys on
      "aria-label": `${this.title} over steps. Arrow keys read values, plus and minus zoom, 0 shows all.`,
    });
    this.base = element("canvas");
    this.over = element("canvas", "over");
    this.plot.append(this.base, this.over);
    this.root.append(side, this.plot);
    host.append(this.root);
  }

  logButton() {
    const button = element("button", "toggle", "log", { type: "button" });
    const show = () => button.setAttribute("aria-pressed", String(this.log));
    button.addEventListener("click", () => {
      this.log = !this.log;
      show();
      this.axis.changed();
    });
    show();
    return button;
  }

  /** Each line's colour, name and value at the cursor; a click hides or shows the line. */
  legend() {
    const list = element("ul", "legend");
    this.outputs = this.lines.map((line, index) => {
      const item = element("li");
      const button = element("button", "", "", { type: "button", "aria-pressed": "true" });
      const value = element("output", "", "", { "aria-live": "off" });
      button.append(element("i", `swatch c${(index % 6) + 1}${line.dashed ? " dashed" : ""}`));
      button.append(element("span", "name", line.label, { title: line.label }), value);
      button.addEventListener("click", () => {
        const shown = this.hidden.delete(index) || !this.hidden.add(index);
        button.setAttribute("aria-pressed", String(shown));
        this.axis.changed();
      });
      item.append(button);
      list.append(item);
      return value;
    });
    return list;
  }

  get top() {
    return this.lanes.length ? LANE * this.lanes.length + 6 : 7;
  }

  /** Findings' ranges in rows in which none lies on another. */
  arranged() {
    const lanes = [];
    const width = (this.axis.last - this.axis.first) * 0.035;
    for (const mark of this.marks) {
      const free = (lane) => lane.every((o) => mark.start > Math.max(o.end, o.start + width));
      const lane = lanes.find(free);
      if (lane) lane.push(mark);
      else if (lanes.length < LANES) lanes.push([mark]);
    }
    return lanes;
  }

  markAt(x, y) {
    const width = this.plot.clientWidth;
    const lane = this.lanes[Math.floor((y - 2) / LANE)] ?? [];
    const hit = (mark) => {
      const start = this.tagX(mark, width);
      return x >= start - 3 && x <= Math.max(start + LANE, this.axis.x(mark.end, width));
    };
    return lane.find(hit) ?? null;
  }

  tagX(mark, width) {
    return Math.min(Math.max(this.axis.x(mark.start, width), LEFT), width - RIGHT - LANE);
  }

  snapped(step) {
    const line = this.lines.find((_, index) => !this.hidden.has(index)) ?? this.lines[0];
    const at = nearest(line.x, step);
    return at < 0 ? step : line.x[at];
  }

  walk(by) {
    const line = this.lines.find((_, index) => !this.hidden.has(index)) ?? this.lines[0];
    const from = this.axis.cursor ?? this.axis.low;
    const at = Math.min(Math.max(nearest(line.x, from) + by, 0), line.x.length - 1);
    this.axis.point(line.x[at]);
    if (line.x[at] < this.axis.low || line.x[at] > this.axis.high) {
      this.axis.pan(by > 0 ? 0.5 : -0.5);
    }
    for (const output of this.outputs) output.setAttribute("aria-live", "polite");
  }

  /** Lowest and highest value in view, with some air. */
  range() {
    let [low, high] = [Infinity, -Infinity];
    this.lines.forEach((line, index) => {
      if (this.hidden.has(index)) return;
      const start = Math.max(0, firstFrom(line.x, this.axis.low) - 1);
      const end = Math.min(line.x.length, firstFrom(line.x, this.axis.high) + 1);
      for (const values of line.y ? [line.y] : [line.low, line.high]) {
        for (let i = start; i < end; i++) {
          const value = values[i];
          if (!Number.isFinite(value)) continue;
          if (value < low) low = value;
          if (value > high) high = value;
        }
      }
    });
    if (low > high) return this.log ? [0.1, 1] : [0, 1];
    if (this.log) return low === high ? [low / 2, high * 2] : [low * 0.94, high * 1.06];
    const air = (high / 2 - low / 2) * 0.12 || Math.abs(high) * 0.1 || 1;
    return [low - air, high + air];
  }

  draw() {
    const width = this.plot.clientWidth;
    if (!width) return;
    const height = this.height + (this.lanes.length ? LANE * this.lanes.length : 0);
    this.plot.style.height = `${height}px`;
    this.size = [width, height];
    const [low, high] = this.range();
    const scale = this.log ? Math.log : (value) => value / 2; // halves: a range may overflow
    const [bottom, span] = [scale(low), scale(high) - scale(low)];
    const [from, room] = [height - 5, height - 5 - this.top];
    this.y = (value) => from - ((scale(value) - bottom) / span) * room;
    const context = prepared(this.base, width, height);
    this.drawMarks(context, width, height);
    this.drawGrid(context, low, high, width);
    context.save();
    context.beginPath();
    context.rect(LEFT - 2, 0, width - LEFT - RIGHT + 4, height);
    context.clip();
    this.lines.forEach((line, index) => {
      if (this.hidden.has(index)) return;
      context.strokeStyle = context.fillStyle = token(`--series-${(index % 6) + 1}`);
      if (line.y) this.drawLine(context, line, line.y, width);
      else this.drawRange(context, line, width);
    });
    this.drawBroken(context, width);
    context.restore();
  }

  drawGrid(context, low, high, width) {
    const count = Math.max(2, Math.round((this.height - 10) / 42));
    let ticks = this.log ? logTicks(low, high, count) : linearTicks(low, high, count);
    if (ticks.length < 2) ticks = linearTicks(low, high, 2 * count);
    context.lineWidth = 1;
    context.textAlign = "right";
    context.textBaseline = "middle";
    let free = Infinity;
    for (const value of ticks) {
      const y = Math.round(this.y(value)) + 0.5;
      context.strokeStyle = token("--grid");
      context.beginPath();
      context.moveTo(LEFT, y);
      context.lineTo(width - RIGHT, y);
      context.stroke();
      if (y > free - 12) continue;
      free = y;
      context.fillStyle = token("--soft");
      context.fillText(tickText(value), LEFT - 7, y);
    }
    context.textAlign = "left";
  }

  drawMarks(context, width, height) {
    const span = this.axis.high - this.axis.low;
    this.lanes.forEach((lane, row) => {
      for (const mark of lane) {
        if (mark.end < this.axis.low || mark.start > this.axis.high) continue;
        const colour = token(`--${mark.severity}`);
        const start = Math.max(this.axis.x(mark.start, width), LEFT);
        const end = Math.min(Math.max(this.axis.x(mark.end, width), start + 2), width - RIGHT);
        context.fillStyle = colour;
        // A range as long as the view would only tint everything.
        if (mark.end - mark.start < 0.7 * span) {
          context.globalAlpha = 0.1;
          context.fillRect(start, this.top - 3, end - start, height - this.top - 2);
          context.globalAlpha = 1;
        }
        const y = 2 + row * LANE;
        const tag = this.tagX(mark, width);
        context.fillRect(start, y + 6, end - start, 2);
        context.fillRect(tag, y, 14, 14);
        context.fillStyle = token("--page");
        context.textAlign = "center";
        context.textBaseline = "middle";
        context.fillText(mark.label, tag + 7, y + 7.5);
        context.textAlign = "left";
      }
    });
  }

  drawLine(context, line, values, width) {
    const start = Math.max(0, firstFrom(line.x, this.axis.low) - 1);
    const end = Math.min(line.x.length, firstFrom(line.x, this.axis.high) + 2);
    context.lineWidth = end - start > 2 * width ? 0.8 : 1.3; // noise must not become a slab
    context.lineJoin = "round";
    context.setLineDash(line.dashed ? [5, 3] : []);
    context.beginPath();
    const dots = [];
    let joined = false;
    for (let i = start; i < end; i++) {
      const value = values[i];
      if (!Number.isFinite(value)) {
        joined = false;
        continue;
      }
      const [x, y] = [this.axis.x(line.x[i], width), this.y(value)];
      if (joined) context.lineTo(x, y);
      else context.moveTo(x, y);
      const alone = !joined && !(i + 1 < end && Number.isFinite(values[i + 1]));
      if (alone || (line.whole && end - start < 40)) dots.push([x, y]);
      joined = true;
    }
    context.stroke();
    context.setLineDash([]);
    for (const [x, y] of dots) this.dot(context, x, y, 1.8);
  }

  /** The range between the lowest and the highest value of each cell. */
  drawRange(context, line, width) {
    context.globalAlpha = 0.16;
    for (let i = 0; i < line.x.length; i++) {
      if (!Number.isFinite(line.low[i])) continue;
      const [left, right] = [line.starts[i], line.ends[i]].map((step) => this.axis.x(step, width));
      const top = this.y(line.high[i]);
      context.fillRect(left, top, right - left, this.y(line.low[i]) - top);
    }
    context.globalAlpha = 1;
    this.drawLine(context, line, line.high, width);
    if (line.low !== line.high) this.drawLine(context, line, line.low, width);
  }

  /** A mark at the top for each value that is NaN or infinite: there the line has a gap. */
  drawBroken(context, width) {
    context.fillStyle = token("--broken");
    this.lines.forEach((line, index) => {
      if (this.hidden.has(index)) return;
      const is = (i) => (line.y ? !Number.isFinite(line.y[i]) : line.broken?.[i] > 0);
      for (let i = 0; i < line.x.length; i++) {
        if (!is(i) || line.x[i] < this.axis.low || line.x[i] > this.axis.high) continue;
        const x = this.axis.x(line.x[i], width);
        context.beginPath();
        context.moveTo(x - 4, this.top - 6);
        context.lineTo(x + 4, this.top - 6);
        context.lineTo(x, this.top + 1);
        context.fill();
      }
    });
  }

  dot(context, x, y, radius) {
    context.beginPath();
    context.arc(x, y, radius, 0, 7);
    context.fill();
  }

  drawCursor() {
    if (!this.size) return;
    const [width, height] = this.size;
    const context = prepared(this.over, width, height);
    const { cursor } = this.axis;
    if (this.selection) {
      const [a, b] = this.selection.map((x) => Math.min(Math.max(x, LEFT), width - RIGHT));
      context.fillStyle = token("--select");
      context.fillRect(Math.min(a, b), this.top, Math.abs(b - a), height - this.top);
    }
    this.lines.forEach((line, index) => this.tell(line, index, cursor));
    if (cursor === null || cursor < this.axis.low || cursor > this.axis.high) return;
    const x = this.axis.x(cursor, width);
    context.fillStyle = token("--soft");
    context.fillRect(Math.round(x), this.top - 2, 1, height - this.top);
    this.lines.forEach((line, index) => {
      const [at, step] = this.pointed(line, cursor);
      const value = at < 0 ? NaN : (line.y ?? line.high)[at];
      if (this.hidden.has(index) || !Number.isFinite(value)) return;
      context.fillStyle = token(`--series-${(index % 6) + 1}`);
      this.dot(context, this.axis.x(step, width), this.y(value), 3.2);
    });
  }

  /** The point of a line nearest to the cursor, and its step: any one within equal values. */
  pointed(line, cursor) {
    const at = nearest(line.x, cursor);
    const next = at < 0 ? -1 : at + Math.sign(cursor - line.x[at]);
    const isLevel = line.y && next in line.x && line.y[next] === line.y[at];
    return [at, isLevel ? cursor : line.x[at]];
  }

  /** The value of a line at the cursor; its own step where that is another one. */
  tell(line, index, cursor) {
    const [at, step] = cursor === null ? [-1] : this.pointed(line, cursor);
    let text = "";
    if (at >= 0) {
      text = line.y ? numberText(line.y[at]) : rangeText(line.low[at], line.high[at], line.broken?.[at]);
      const away = Math.abs(step - cursor) > (this.axis.high - this.axis.low) * 0.005;
      if (away) text += ` @${this.axis.steps.text(step)}`;
    }
    if (this.outputs[index].textContent !== text) this.outputs[index].textContent = text;
  }

  select(range) {
    this.selection = range;
    this.drawCursor();
  }
}
