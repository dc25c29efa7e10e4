// Numbers from the page's data blocks, and numbers as text.

const TYPES = { u1: Uint8Array, u4: Uint32Array, f4: Float32Array, f8: Float64Array };

/** A typed array from base64 of its little-endian bytes. */
function unpack(packed) {
  const text = atob(packed.d);
  const bytes = new Uint8Array(text.length);
  for (let i = 0; i < text.length; i++) bytes[i] = text.charCodeAt(i);
  return new TYPES[packed.t](bytes.buffer);
}

/** Steps of a run. Offsets are floats from `origin`; BigInt, as steps may exceed 2^53. */
class Steps {
  constructor(origin) {
    this.origin = BigInt(origin);
  }

  text(offset) {
    return (this.origin + BigInt(Math.round(offset))).toString();
  }
}

/** Four significant digits, as the other reports of nndiag write them. */
function numberText(value) {
  if (Number.isNaN(value)) return "NaN";
  if (!Number.isFinite(value)) return value > 0 ? "infinity" : "-infinity";
  if (value === 0) return "0";
  const size = Math.abs(value);
  if (size >= 1e-4 && size < 1e7) {
    const text = value.toFixed(Math.max(0, 3 - Math.floor(Math.log10(size))));
    return text.includes(".") ? text.replace(/0+$/, "").replace(/\.$/, "") : text;
  }
  return exponentText(value);
}

function exponentText(value) {
  const [mantissa, exponent] = value.toExponential(3).split("e");
  return `${mantissa.replace(/\.?0+$/, "")}e${Number(exponent)}`;
}

/** A round number at an axis: 1e5, not 100000. */
function tickText(value) {
  const size = Math.abs(value);
  return size === 0 || (size >= 1e-3 && size < 1e5) ? numberText(value) : exponentText(value);
}

/** Index of the entry of a sorted array that is nearest to `value`; -1 in an empty one. */
function nearest(sorted, value) {
  const at = firstFrom(sorted, value);
  if (at === 0) return sorted.length ? 0 : -1;
  if (at === sorted.length) return at - 1;
  return value - sorted[at - 1] <= sorted[at] - value ? at - 1 : at;
}

/** Index of the first entry of a sorted array that is not below `value`. */
function firstFrom(sorted, value) {
  let low = 0;
  let high = sorted.length;
  while (low < high) {
    const middle = (low + high) >> 1;
    if (sorted[middle] < value) low = middle + 1;
    else high = middle;
  }
  return low;
}

/** Round numbers between two values, about `count` of them. */
function linearTicks(low, high, count) {
  const span = high - low;
  if (!(span > 0) || !Number.isFinite(span)) return [low];
  const rough = span / Math.max(1, count);
  const unit = 10 ** Math.floor(Math.log10(rough));
  const step = unit * [1, 2, 5, 10].find((factor) => factor * unit >= rough * 0.999);
  const ticks = [];
  for (let i = Math.ceil(low / step - 1e-9); i * step <= high + step * 1e-9; i++) {
    ticks.push(Number((i * step).toPrecision(12)));
  }
  return ticks;
}

/** Powers of ten between two positive values; with 2 and 5 between them where there are few. */
function logTicks(low, high, count) {
  const first = Math.floor(Math.log10(low));
  const last = Math.ceil(Math.log10(high));
  const stride = Math.max(1, Math.round((last - first) / Math.max(2, count + 1)));
  const factors = last - first <= 2 ? [1, 2, 5] : [1];
  const ticks = [];
  for (let power = Math.ceil(first / stride) * stride; power <= last; power += stride) {
    for (const factor of factors) {
      const value = Number(`${factor}e${power}`);
      if (value >= low * 0.9999 && value <= high * 1.0001) ticks.push(value);
    }
  }
  return ticks.length > 1 ? ticks : [low, high];
}

/** An element with classes, text and attributes; text is never markup. */
function element(tag, classes = "", text = "", attributes = {}) {
  const made = document.createElement(tag);
  if (classes) made.className = classes;
  if (text) made.textContent = text;
  for (const [name, value] of Object.entries(attributes)) made.setAttribute(name, value);
  return made;
}

/** The value of a custom property of the style, as the theme has it now. */
function token(name) {
  return getComputedStyle(document.documentElement).getPropertyValue(name).trim();
}
