// Axes: where a value lies, and which values are named.
const TIME_STEPS = [15, 30, 60, 120, 300, 600, 900, 1800, 3600, 7200, 14400, 21600, 43200, 86400];

function scale(low, high, from, to, logarithmic) {
  const bend = logarithmic ? Math.log10 : (value) => value;
  const [start, span] = [bend(low), bend(high) - bend(low) || 1];
  const at = (value) => from + ((bend(value) - start) / span) * (to - from);
  at.back = (pixel) => {
    const value = start + ((pixel - from) / (to - from)) * span;
    return logarithmic ? 10 ** value : value;
  };
  return Object.assign(at, { low, high, logarithmic });
}

function niceStep(span, count) {
  const rough = span / Math.max(1, count);
  const power = 10 ** Math.floor(Math.log10(rough));
  return [1, 2, 2.5, 5, 10].map((part) => part * power).find((step) => step >= rough * 0.999);
}

function ticks(low, high, count, kind) {
  if (!(high > low)) return [low];
  let step = niceStep(high - low, count);
  if (kind === "seconds" && step > 10) step = TIME_STEPS.find((one) => one >= step) ?? Math.ceil(step / 86400) * 86400;
  if (kind === "round") step = Math.max(1, Math.ceil(step));
  const found = [];
  for (let place = Math.ceil(low / step - 1e-9); place * step <= high * (1 + 1e-9) + 1e-12; place += 1) found.push(place * step + 0);
  return found;
}

function logTicks(low, high, count) {
  const [first, last] = [Math.floor(Math.log10(low)), Math.ceil(Math.log10(high))];
  const parts = last - first <= 2 ? [1, 2, 5] : [1];
  const every = Math.max(1, Math.ceil((last - first) / Math.max(2, count)));
  const found = [];
  for (let power = first; power <= last; power += every) found.push(...parts.map((part) => part * 10 ** power));
  return found.filter((value) => value >= low * 0.999 && value <= high * 1.001);
}

function niceRange(low, high, kind) {
  if (kind === "share") {
    const step = niceStep(Math.max(high - low, 0.001), 4);
    return [Math.max(0, Math.floor(low / step) * step), Math.min(1, Math.ceil(high / step) * step)];
  }
  const step = niceStep(Math.max(high, 1e-12), 4);
  return [Math.min(0, low), Math.ceil(high / step) * step];
}
