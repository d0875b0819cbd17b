// The page: theme, curves and their controls, and all the parts.
const THEMES = { auto: "Theme: auto", light: "Theme: light", dark: "Theme: dark" };
const X_AXES = { round: "Rounds", seconds: "Time", simulated: "Simulated", uplink: "Bytes up", total: "All bytes" };
const SPREAD = 6; // times that ends lie apart, beyond which an axis of bytes starts logarithmic
const ERRORS = { "train.compression_error": "Up, mean over the clients", downlink_error: "Down" };

function themes(redraw) {
  const button = byId("theme");
  const remembered = (value) => {
    try {
      if (value) localStorage.setItem("thinwire-theme", value);
      return localStorage.getItem("thinwire-theme");
    } catch {
      return value ?? null; // a page from a file may have no storage
    }
  };
  const wear = (theme) => {
    if (theme === "auto") document.documentElement.removeAttribute("data-theme");
    else document.documentElement.setAttribute("data-theme", theme);
    button.textContent = THEMES[theme];
    button.value = theme;
    redraw();
  };
  const names = Object.keys(THEMES);
  button.hidden = false;
  button.addEventListener("click", () => {
    const next = names[(names.indexOf(button.value) + 1) % names.length];
    remembered(next);
    wear(next);
  });
  const before = remembered();
  wear(names.includes(before) ? before : "auto");
  matchMedia("(prefers-color-scheme: dark)").addEventListener("change", redraw);
}

function seriesOf(run, place, metric) {
  const points = run.metrics[metric];
  if (!points) return null;
  const xs = {};
  for (const axis of Object.keys(WORDS)) {
    if (run[axis]) xs[axis] = points.at ? points.at.map((at) => run[axis][at]) : run[axis];
  }
  return { label: run.label, colour: place, dash: place >> 2, xs, ys: points.y };
}

function metricSeries(metric) {
  return data.runs.map((run, place) => seriesOf(run, place, metric)).filter(Boolean);
}

function axesOf(runs) {
  return Object.keys(X_AXES).filter((axis) => runs.every((run) => run[axis])).map((axis) => [axis, X_AXES[axis]]);
}

function farApart(axis) {
  const ends = data.runs.map((run) => run[axis][run[axis].length - 1]).filter((end) => end > 0);
  return ends.length > 1 && Math.max(...ends) > SPREAD * Math.min(...ends);
}

function curves() {
  const view = new View("round");
  const charts = byId("curve-charts");
  for (const [metric, name, kind] of [["accuracy", "Test accuracy", "share"], ["loss", "Test loss", "number"]]) {
    const series = metricSeries(metric);
    if (series.length) new Chart(charts.appendChild(element("div")), view, { name, series, kind, target: data.targets[metric] ?? null });
  }
  if (!view.charts.length) {
    charts.append(element("p", { class: "note" }, "No round has been evaluated yet."));
    return;
  }
  const logX = tick("Log x", false, (on) => view.set({ logX: on }));
  const chooseX = (x) => {
    const spread = ["uplink", "total"].includes(x) && farApart(x);
    logX.querySelector("input").checked = spread;
    view.set({ x, logX: spread });
    errors.view?.set({ x });
  };
  byId("curve-controls").append(
    choice("x", "Horizontal axis", axesOf(data.runs), "round", chooseX),
    logX,
    tick("Log y", false, (on) => view.set({ logY: on })),
  );
  legend(view);
}

function legend(view) {
  if (data.runs.length < 2) return;
  data.runs.forEach((run, place) => {
    const line = drawn("svg", { width: 22, height: 10, class: `s${place}`, "aria-hidden": "true" },
      drawn("line", { x1: 0, x2: 22, y1: 5, y2: 5, stroke: "currentColor", "stroke-width": 2.4, "stroke-dasharray": DASHES[place >> 2] }));
    const toggle = () => {
      const shown = view.hidden.delete(run.label);
      if (!shown) view.hidden.add(run.label);
      button.setAttribute("aria-pressed", String(shown));
      view.set({});
    };
    const button = element("button", { type: "button", "aria-pressed": "true", onclick: toggle }, line, run.label);
    byId("legend").append(button);
  });
}

function errors() {
  const found = Object.entries(ERRORS).filter(([metric]) => metricSeries(metric).length);
  if (!found.length) return;
  byId("error").hidden = false;
  errors.view = new View("round");
  for (const [metric, name] of found) {
    new Chart(byId("error-charts").appendChild(element("div")), errors.view, { name, series: metricSeries(metric) });
  }
}

function times() {
  const { round, seconds, longest, width, simulated } = data.times;
  if (!round.length) {
    byId("round-times").append(element("p", { class: "note" }, "No round is over yet."));
    return;
  }
  const xs = { round };
  const series = [{ label: longest ? "middle one" : "round", colour: 0, dash: 0, xs, ys: seconds }];
  if (longest) series.push({ label: "longest", colour: 0, dash: 0, xs, ys: longest, faint: true });
  const clock = simulated ? ", on the simulated clock" : "";
  const name = width > 1 ? `Time of a round${clock}: of each ${width}, the middle one and the longest` : `Time of each round${clock}`;
  new Chart(byId("round-times"), new View("round"), { name, series, kind: "seconds" });
}

function notes() {
  const cut = data.runs.filter((run) => run.kept < run.of);
  if (!cut.length) return;
  const told = cut.map((run) => `${whole(run.kept)} of ${whole(run.of)} rounds${data.runs.length > 1 ? ` of ${run.label}` : ""}`);
  byId("thinned").textContent = `Thinned to keep the page small: ${told.join("; ")}, the lowest and the highest loss of each stretch among them.`;
  byId("thinned").hidden = false;
}

function copying() {
  for (const button of document.querySelectorAll(".copy")) {
    button.hidden = false;
    button.addEventListener("click", async () => {
      const code = button.parentElement.querySelector("code");
      try {
        await navigator.clipboard.writeText(code.textContent);
        button.textContent = "Copied";
        setTimeout(() => (button.textContent = "Copy"), 1500);
      } catch {
        getSelection().selectAllChildren(code); // no clipboard for this page: selected, to be copied by hand
      }
    });
  }
}

const map = data.clients.name.length && data.clients.map.asked ? new Participation(byId("map"), data.clients) : null;
themes(() => map?.draw());
errors();
curves();
notes();
directions(byId("directions"), data.clients);
if (data.clients.name.length) new ClientTable(byId("client-table"), byId("client-controls"), data.clients);
times();
slowest(byId("slowest"), data.clients);
if (data.events.shown.length) new EventList(byId("event-list"), data.events, data.started);
else byId("event-list").append(element("p", { class: "note" }, "Nothing but rounds has been recorded."));
copying();
document.documentElement.setAttribute("data-ready", "");
