// Curves that one can hover, or walk with the arrow keys; charts of one view share x-axis, hidden runs and crosshair.
const WORDS = {
  round: (value) => `round ${whole(Math.round(value))}`,
  seconds: duration,
  simulated: duration,
  uplink: (value) => `${bytes(value)} up`,
  total: (value) => `${bytes(value)} up and down`,
};
const AXIS = {
  round: ["rounds", (value) => whole(value)],
  seconds: ["time of the rounds", duration],
  simulated: ["time over the simulated links", duration],
  uplink: ["sent up, all clients", bytes],
  total: ["sent up and down, all clients", bytes],
};
const DASHES = ["", "7 4", "2 4", "9 4 2 4"];

class View {
  constructor(x) {
    Object.assign(this, { x, logX: false, logY: false, hidden: new Set(), charts: [] });
  }

  set(changes) {
    Object.assign(this, changes);
    for (const chart of this.charts) chart.draw();
  }

  point(value) {
    for (const chart of this.charts) chart.point(value);
  }
}

class Chart {
  // series: {label, colour, dash, xs: {round, ...}, ys, faint}; kind: "share" (in %), "seconds" or "number"
  constructor(holder, view, { name, series, kind = "number", target = null }) {
    Object.assign(this, { holder, view, name, series, kind, target });
    view.charts.push(this);
    this.words = kind === "share" ? (v) => percent(v, 4) : kind === "seconds" ? duration : (v) => significant(v, 4);
    this.plot = element("div", { class: "plot", tabindex: "0", role: "group", "aria-roledescription": "chart" });
    this.tip = element("div", { class: "tip", hidden: true });
    this.plot.append((this.svg = drawn("svg", { role: "img" })), this.tip);
    holder.append(element("div", { class: "chart" }, element("h3", {}, name), this.plot));
    this.plot.addEventListener("pointermove", (event) => this.follow(event));
    this.plot.addEventListener("pointerdown", (event) => this.follow(event));
    this.plot.addEventListener("pointerleave", (event) => event.pointerType === "mouse" && view.point(null));
    this.plot.addEventListener("keydown", (event) => this.walk(event));
    this.plot.addEventListener("blur", () => view.point(null));
    new ResizeObserver(() => this.plot.clientWidth !== this.width && this.draw()).observe(this.plot);
    this.draw();
  }

  shown() {
    const axis = this.view.x;
    return this.series
      .filter((one) => !this.view.hidden.has(one.label) && one.xs[axis])
      .map((one) => ({ ...one, x: one.xs[axis] }));
  }

  draw() {
    this.width = this.plot.clientWidth;
    if (!this.width) return;
    const view = this.view;
    const height = this.width < 420 ? 220 : 268;
    const series = (this.visible = this.shown());
    const xs = series.flatMap((one) => [one.x[0], one.x[one.x.length - 1]]).filter((x) => x !== undefined);
    const positive = series.map((one) => one.x.find((x) => x > 0)).filter((x) => x !== undefined);
    const ys = series.flatMap((one) => one.ys.filter((y) => y !== null));
    const logX = view.logX && positive.length > 0;
    const logY = view.logY && this.kind !== "share" && ys.some((y) => y > 0);
    const above = ys.filter((y) => y > 0);
    let [low, high] = ys.length ? [ys.reduce((a, b) => Math.min(a, b)), ys.reduce((a, b) => Math.max(a, b))] : [0, 1];
    if (this.target !== null) [low, high] = [Math.min(low, this.target), Math.max(high, this.target)];
    if (logY) low = above.reduce((a, b) => Math.min(a, b));
    else [low, high] = niceRange(low, high, this.kind);
    if (logY && high / low < 1.2) [low, high] = [low / 1.2, high * 1.2];
    const [left, right, top, bottom] = [46, this.width - 12, 10, height - 40];
    const [start, end] = [logX ? Math.min(...positive) : 0, Math.max(...xs, logX ? 0 : 1e-9)];
    this.toX = scale(start, end > start ? end : start + 1, left, right, logX);
    this.toY = scale(low, high > low ? high : low + 1, bottom, top, logY);
    Object.assign(this, { left, right, top, bottom });
    this.svg.replaceChildren(...this.frame(height), ...this.lines());
    this.marks = this.svg.appendChild(drawn("g"));
    this.svg.setAttribute("viewBox", `0 0 ${this.width} ${height}`);
    const said = series.map((one) => `${one.label}: ${this.ended(one)}`).join("; ");
    this.svg.setAttribute("aria-label", `${this.name} against ${AXIS[view.x][0]}. ${said}`);
    this.plot.setAttribute("aria-label", `${this.name}; arrow keys read the values`);
    this.tip.hidden = true;
  }

  ended(one) {
    const last = one.ys.findLastIndex((y) => y !== null);
    return last < 0 ? "no values" : `${this.words(one.ys[last])} at ${WORDS[this.view.x](one.x[last])}`;
  }

  frame(height) {
    const { toX, toY, left, right, top, bottom } = this;
    const [title, words] = AXIS[this.view.x];
    const parts = [];
    const count = Math.max(2, Math.floor((bottom - top) / 52));
    for (const y of toY.logarithmic ? logTicks(toY.low, toY.high, count) : ticks(toY.low, toY.high, count, this.kind)) {
      const at = Math.round(toY(y)) + 0.5;
      const label = this.kind === "share" ? percent(y) : this.kind === "seconds" ? duration(y) : significant(y);
      parts.push(drawn("line", { class: "grid", x1: left, x2: right, y1: at, y2: at }));
      parts.push(drawn("text", { x: left - 8, y: at + 4, "text-anchor": "end" }, label));
    }
    const across = Math.max(2, Math.floor((right - left) / 78));
    const kind = this.view.x === "simulated" ? "seconds" : this.view.x;
    let free = -Infinity;
    for (const x of toX.logarithmic ? logTicks(toX.low, toX.high, across) : ticks(toX.low, toX.high, across, kind)) {
      const text = words(x);
      const half = text.length * 3.4;
      const at = Math.min(toX(x), right + 10 - half);
      if (at - half < free) continue;
      free = at + half + 8;
      parts.push(drawn("text", { x: at, y: bottom + 18, "text-anchor": "middle" }, text));
    }
    parts.push(drawn("line", { class: "base", x1: left, x2: right, y1: bottom + 0.5, y2: bottom + 0.5 }));
    parts.push(drawn("text", { x: right, y: height - 4, "text-anchor": "end" }, title));
    if (this.target !== null) {
      const at = Math.round(toY(this.target)) + 0.5;
      parts.push(drawn("line", { class: "target", x1: left, x2: right, y1: at, y2: at }));
      parts.push(drawn("text", { x: right, y: at + 14, "text-anchor": "end" }, `target ${this.words(this.target)}`));
    }
    return parts;
  }

  lines() {
    const { toX, toY } = this;
    const parts = [];
    for (const one of [...this.visible].reverse()) {
      let path = "";
      let pen = false;
      let last = null;
      one.ys.forEach((y, place) => {
        const drawable = y !== null && (!toY.logarithmic || y > 0) && (!toX.logarithmic || one.x[place] > 0);
        if (drawable) {
          last = [toX(one.x[place]), toY(y)];
          path += `${pen ? "L" : "M"}${last[0].toFixed(1)} ${last[1].toFixed(1)}`;
        }
        pen = drawable;
      });
      const look = { class: `line s${one.colour}${one.faint ? " faint" : ""}`, d: path, "stroke-dasharray": DASHES[one.dash] };
      parts.push(drawn("path", look));
      if (last && !one.faint) parts.push(drawn("circle", { class: `end s${one.colour}`, cx: last[0], cy: last[1], r: 3.2 }));
    }
    return parts;
  }

  follow(event) {
    const box = this.plot.getBoundingClientRect();
    if (!this.visible?.length) return;
    const at = Math.max(this.left, Math.min(this.right, event.clientX - box.left));
    this.view.point(this.toX.back(at));
  }

  walk(event) {
    const xs = this.visible?.[0]?.x ?? [];
    if (!xs.length) return;
    const here = this.value === null || this.value === undefined ? -1 : nearest(xs, this.value);
    const stride = event.shiftKey ? 10 : 1;
    const moves = { ArrowRight: here + stride, ArrowLeft: here < 0 ? xs.length - 1 : here - stride, Home: 0, End: xs.length - 1 };
    if (event.key === "Escape") return this.view.point(null);
    if (!(event.key in moves)) return;
    event.preventDefault();
    this.view.point(xs[Math.max(0, Math.min(xs.length - 1, moves[event.key]))]);
    say(this.tip.innerText.replace(/\s*\n\s*/g, ", "));
  }

  // Whether a curve has points near a pixel: a run that ended earlier has nothing to say there.
  reaches(one, pixel) {
    const bound = (x) => this.toX(Math.max(x, this.toX.low));
    return pixel >= bound(one.x[0]) - 16 && pixel <= bound(one.x[one.x.length - 1]) + 16;
  }

  point(value) {
    this.value = value;
    this.marks?.replaceChildren();
    this.tip.hidden = value === null;
    if (value === null || !this.visible?.length) return;
    const here = this.toX(Math.max(value, this.toX.low));
    const found = this.visible
      .map((one) => ({ one, place: nearest(one.x, value) }))
      .filter(({ one, place }) => place >= 0 && this.reaches(one, here));
    this.tip.hidden = !found.length;
    if (!found.length) return;
    const close = found.reduce((a, b) => (Math.abs(a.one.x[a.place] - value) <= Math.abs(b.one.x[b.place] - value) ? a : b));
    const x = close.one.x[close.place];
    const at = Math.round(this.toX(Math.max(x, this.toX.logarithmic ? this.toX.low : x))) + 0.5;
    this.marks.append(drawn("line", { class: "cross", x1: at, x2: at, y1: this.top, y2: this.bottom }));
    const rows = found.map(({ one, place }) => {
      const y = one.ys[place];
      if (y !== null && (!this.toY.logarithmic || y > 0)) {
        this.marks.append(drawn("circle", { class: `dot s${one.colour}`, cx: this.toX(one.x[place]), cy: this.toY(y), r: 4 }));
      }
      const own = found.length === 1 ? "" : this.view.x !== "round" ? WORDS.round(one.xs.round[place]) : one.xs.total && WORDS.total(one.xs.total[place]);
      const said = y === null ? "not finite" : this.words(y);
      return element("div", { class: "row" }, swatch(`s${one.colour}`), element("span", {}, one.label, own ? element("small", {}, own) : null), element("b", {}, said));
    });
    const more = Object.keys(WORDS).filter((axis) => axis !== this.view.x && close.one.xs[axis]);
    const words = more.map((axis) => WORDS[axis](close.one.xs[axis][close.place])).join(" · ");
    const rest = found.length === 1 && words ? element("span", {}, words) : null;
    fill(this.tip, {}, [this.tip.replaceChildren(), element("strong", {}, WORDS[this.view.x](x)), rest, ...rows]);
    place(this.tip, this.plot, at, 4);
  }
}

// Place of the value closest to one that is sought, in ascending values; -1 where there are none.
function nearest(values, sought) {
  let [low, high] = [0, values.length - 1];
  while (high - low > 1) {
    const middle = (low + high) >> 1;
    if (values[middle] < sought) low = middle;
    else high = middle;
  }
  if (high < 0) return -1;
  return Math.abs(values[low] - sought) <= Math.abs(values[high] - sought) ? low : high;
}
