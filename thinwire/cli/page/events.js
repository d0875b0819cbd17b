// What happened, with a filter by kind and by words.
const STEP = 60;

class EventList {
  constructor(holder, events, started) {
    Object.assign(this, { events, started, limit: STEP, kinds: new Set() });
    const chips = Object.entries(events.kinds).map(([kind, count]) => this.chip(kind, count));
    this.search = element("input", {
      type: "search", placeholder: "Find in events", "aria-label": "Find in events", oninput: () => this.fill(),
    });
    this.body = element("tbody");
    this.more = element("button", { type: "button", class: "more", onclick: () => this.widen() });
    this.count = element("p", { class: "note", "aria-live": "polite" });
    const names = ["After", "Event", "Client", "Round", "Details"];
    const head = element("tr", {}, names.map((name) => element("th", { scope: "col", class: name === "Round" ? false : "text" }, name)));
    const table = element("table", {}, element("thead", {}, head), this.body);
    this.table = element("div", { class: "wide", role: "region", "aria-label": "Table of events", tabindex: "0" }, table);
    const filter = element("div", { class: "chips", role: "group", "aria-label": "Kinds of events" }, chips);
    holder.append(filter, this.search, this.count, this.table, this.more);
    this.fill();
  }

  chip(kind, count) {
    const toggle = () => {
      const on = !this.kinds.delete(kind);
      if (on) this.kinds.add(kind);
      button.setAttribute("aria-pressed", String(on));
      this.limit = STEP;
      this.fill();
    };
    const button = element("button", { type: "button", "aria-pressed": "false", onclick: toggle }, kind, element("small", {}, whole(count)));
    return button;
  }

  widen() {
    this.limit += 10 * STEP;
    this.fill();
  }

  fill() {
    const { events, kinds } = this;
    const sought = this.search.value.trim().toLowerCase();
    const found = events.shown.filter(
      ([, kind, client, , words]) =>
        (!kinds.size || kinds.has(kind)) && (!sought || `${kind} ${client} ${words}`.toLowerCase().includes(sought)),
    );
    const kept = events.of > events.shown.length ? `; the page keeps ${whole(events.shown.length)} of ${whole(events.of)}, the last of each kind` : "";
    this.count.textContent = found.length === events.shown.length && !kept ? "" : `${whole(found.length)} found${kept}`;
    this.count.hidden = !this.count.textContent;
    this.table.hidden = !found.length;
    this.body.replaceChildren(...found.slice(0, this.limit).map((event) => this.row(event)));
    this.more.hidden = found.length <= this.limit;
    this.more.textContent = `Show more of ${whole(found.length)}`;
  }

  row([time, kind, client, round, words]) {
    const after = time === null ? "" : duration(Math.max(0, time - this.started));
    const clock = time === null ? null : new Date(time * 1000).toISOString();
    return element("tr", {}, element("th", { scope: "row", title: clock }, after), element("td", { class: "text" }, kind),
      element("td", { class: "text wrap" }, client), element("td", {}, round === null ? "" : whole(round)),
      element("td", { class: "text wrap" }, words));
  }
}
