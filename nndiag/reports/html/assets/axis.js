// The step axis that all drawings of a run share: what is shown of it, where the cursor is.

const LEFT = 54; // pixels for the labels of values
const RIGHT = 10;
const STRIP_HEIGHT = 24;

class Axis {
  constructor(data) {
    this.steps = new Steps(data.origin);
    const lone = data.first === data.last ? 0.5 : 0;
    this.first = data.first - lone;
    this.last = data.last + lone;
    this.low = this.first;
    this.high = this.last;
    this.cursor = null;
    this.views = []; // each has draw() and drawCursor()
    this.pending = false;
    this.stale = false;
  }

  get isZoomed() {
    return this.low > this.first || this.high < this.last;
  }

  /** Show the steps from `low` to `high`, at least one and no more than there are. */
  show(low, high) {
    const whole = this.last - this.first;
    const span = Math.min(whole, Math.max(high - low, Math.min(1, whole)));
    const start = Math.min(Math.max(low + (high - low - span) / 2, this.first), this.last - span);
    [this.low, this.high] = [start, start + span];
    this.changed();
  }

  /** Zoom by a factor below 1, or out by one above, around a step that stays where it is. */
  scale(factor, around) {
    const at = around ?? this.cursor ?? (this.low + this.high) / 2;
    this.show(at - (at - this.low) * factor, at + (this.high - at) * factor);
  }

  pan(share) {
    const by = (this.high - this.low) * share;
    const low = Math.min(Math.max(this.low + by, this.first), this.last - (this.high - this.low));
    this.show(low, low + (this.high - this.low));
  }

  reset() {
    this.show(this.first, this.last);
  }

  point(step) {
    this.cursor = step === null ? null : Math.min(Math.max(step, this.first), this.last);
    this.schedule(false);
  }

  changed() {
    this.schedule(true);
  }

  /** One drawing a frame, however many events came. */
  schedule(stale) {
    this.stale ||= stale;
    if (this.pending) return;
    this.pending = true;
    requestAnimationFrame(() => {
      const all = this.stale;
      this.pending = this.stale = false;
      for (const view of this.views) {
        if (all) view.draw();
        view.drawCursor();
      }
    });
  }

  x(step, width) {
    return LEFT + ((step - this.low) / (this.high - this.low)) * (width - LEFT - RIGHT);
  }

  step(x, width) {
    return this.low + ((x - LEFT) / (width - LEFT - RIGHT)) * (this.high - this.low);
  }

  /** Whole steps to label, few enough to be read. Relative to the origin where steps are huge. */
  ticks(width) {
    const ticks = linearTicks(this.low, this.high, Math.max(2, (width - LEFT) / 84));
    return ticks.filter((step) => Number.isInteger(step));
  }
}

/** A canvas that is as sharp as the screen; its context counts in CSS pixels. */
function prepared(canvas, width, height) {
  const ratio = Math.min(window.devicePixelRatio || 1, 16000 / Math.max(height, width, 1));
  const [w, h] = [Math.round(width * ratio), Math.round(height * ratio)];
  if (canvas.width !== w || canvas.height !== h) [canvas.width, canvas.height] = [w, h];
  canvas.style.height = `${height}px`;
  const context = canvas.getContext("2d");
  context.setTransform(ratio, 0, 0, ratio, 0, 0);
  context.clearRect(0, 0, width, height);
  context.font = `11px ${token("--sans")}`;
  return context;
}

/** The labels of the step axis, under tracks or under a heat map. */
class Strip {
  constructor(host, axis) {
    this.axis = axis;
    this.canvas = element("canvas", "strip", "", { "aria-hidden": "true" });
    host.append(this.canvas);
    axis.views.push(this);
  }

  draw() {
    const { axis } = this;
    const width = this.canvas.clientWidth;
    if (!width) return;
    const context = prepared(this.canvas, width, STRIP_HEIGHT);
    context.fillStyle = token("--soft");
    context.textBaseline = "middle";
    for (const step of axis.ticks(width)) {
      const text = axis.steps.text(step);
      const half = context.measureText(text).width / 2;
      const at = Math.min(Math.max(axis.x(step, width), LEFT + half - 6), width - half - 1);
      context.fillText(text, at - half, 13);
    }
    if (axis.cursor === null || axis.cursor < axis.low || axis.cursor > axis.high) return;
    const text = axis.steps.text(axis.cursor);
    const half = context.measureText(text).width / 2 + 6;
    const at = Math.min(Math.max(axis.x(axis.cursor, width), half), width - half);
    context.fillStyle = token("--ink");
    context.fillRect(at - half, 3, 2 * half, 19);
    context.fillStyle = token("--page");
    context.fillText(text, at - half + 6, 13);
  }

  drawCursor() {
    this.draw();
  }
}

/**
 * Pointer, wheel and keys on a drawing: drag to zoom, pinch or Ctrl and wheel to zoom, Shift and
 * wheel to pan, double click to see everything. A plain wheel scrolls the page, as it should.
 */
function gestures(target, axis, handlers) {
  const fingers = new Map();
  let start = null; // where a drag with the mouse began
  let tap = null; // where a finger came down
  let spread = 0; // distance of two fingers
  const x = (event) => event.clientX - target.getBoundingClientRect().left;
  const y = (event) => event.clientY - target.getBoundingClientRect().top;
  const step = handlers.step ?? ((at) => axis.step(at, target.clientWidth));
  const gap = () => Math.abs([...fingers.values()].reduce((a, b) => a - b));
  const stop = () => {
    start = null;
    handlers.select?.(null);
  };

  target.addEventListener("pointerdown", (event) => {
    fingers.set(event.pointerId, x(event));
    if (fingers.size === 2) [spread, start, tap] = [gap(), null, null];
    else if (event.pointerType === "mouse" && event.button === 0) {
      start = x(event);
      target.setPointerCapture(event.pointerId);
    } else {
      tap = x(event);
      handlers.hover(step(x(event)), x(event), y(event));
    }
  });
  target.addEventListener("pointermove", (event) => {
    if (fingers.has(event.pointerId)) fingers.set(event.pointerId, x(event));
    if (fingers.size === 2) {
      const [a, b] = [...fingers.values()];
      axis.scale(spread / Math.max(gap(), 1), step((a + b) / 2));
      spread = Math.max(gap(), 1);
      return;
    }
    handlers.hover(step(x(event)), x(event), y(event));
    if (start !== null) handlers.select?.([start, x(event)]);
  });
  target.addEventListener("pointerup", (event) => {
    fingers.delete(event.pointerId);
    if (tap !== null && Math.abs(x(event) - tap) < 8) handlers.click?.(x(event), y(event));
    tap = null;
    if (start === null) return;
    const [low, high] = [step(start), step(x(event))].sort((a, b) => a - b);
    if (Math.abs(x(event) - start) > 5) axis.show(low, high);
    else handlers.click?.(x(event), y(event));
    stop();
  });
  for (const name of ["pointercancel", "pointerleave"]) {
    target.addEventListener(name, (event) => {
      fingers.delete(event.pointerId);
      if (name === "pointercancel") stop();
      if (start === null) handlers.leave();
    });
  }
  target.addEventListener("dblclick", () => axis.reset());
  target.addEventListener(
    "wheel",
    (event) => {
      const sideways = event.shiftKey ? event.deltaY || event.deltaX : event.deltaX;
      if (event.ctrlKey || event.metaKey) axis.scale(Math.exp(event.deltaY / 200), step(x(event)));
      else if (axis.isZoomed && Math.abs(sideways) > Math.abs(event.deltaY) * !event.shiftKey) {
        axis.pan(sideways / target.clientWidth);
      } else return;
      event.preventDefault();
    },
    { passive: false },
  );
  target.addEventListener("keydown", (event) => {
    const keys = {
      "+": () => axis.scale(0.6),
      "=": () => axis.scale(0.6),
      "-": () => axis.scale(1 / 0.6),
      0: () => axis.reset(),
      Escape: () => axis.reset(),
      ...handlers.keys,
    };
    if (event.ctrlKey || event.metaKey || event.altKey || !keys[event.key]) return;
    keys[event.key](event);
    event.preventDefault();
  });
}
