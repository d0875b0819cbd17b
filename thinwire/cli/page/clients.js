// Bytes by direction and by client, and who is slow.
const FEW_CLIENTS = 12;

function directions(holder, clients) {
  for (const [name, sent, dense] of [["Up", "up", "denseUp"], ["Down", "down", "denseDown"]]) {
    const [total, whole_] = [clients.total[sent], clients.total[dense]];
    const share = whole_ ? total / whole_ : 0;
    const bar = element("div", { class: "fill", hidden: total === 0 });
    bar.style.width = `${Math.min(100, 100 * share)}%`;
    const words = element("div", { class: "words" }, element("b", {}, bytes(total)), ` of ${bytes(whole_)} dense`);
    if (total && whole_) words.append(` · ${percent(share)} · `, element("b", {}, `${significant(whole_ / total)} × fewer`));
    const label = `${name}: ${bytes(total)} of ${bytes(whole_)}`;
    holder.append(
      element("div", { class: "direction" }, element("div", { class: "name" }, name),
        element("div", { class: "track", role: "img", "aria-label": label }, bar), words),
    );
  }
}

class ClientTable {
  constructor(holder, controls, clients) {
    this.clients = clients;
    this.all = clients.name.length <= FEW_CLIENTS;
    this.sort = { column: 0, down: false };
    const count = (key, options = {}) => ({ key, values: clients[key], words: whole, ...options });
    const absent = clients.asked.map((asked, place) => Math.max(0, asked - clients.replied[place] - clients.failed[place]));
    const fewer = (sent, dense) => clients[sent].map((value, place) => (value ? clients[dense][place] / value : null));
    const times = (value) => `${significant(value)} ×`;
    this.columns = [
      { name: "Client", values: clients.name },
      { name: "Examples", ...count("examples") },
      { name: "Asked", ...count("asked") },
      { name: "Answered", ...count("replied") },
      { name: "Failed", ...count("failed", { warn: true }) },
      { name: "Absent", values: absent, words: whole },
      { name: "Sent up", values: clients.up, words: bytes, bar: true },
      { name: "Fewer", values: fewer("up", "denseUp"), words: times, label: "Sent up, times fewer than dense" },
      { name: "Sent down", values: clients.down, words: bytes, bar: true },
      { name: "Fewer", values: fewer("down", "denseDown"), words: times, label: "Sent down, times fewer than dense" },
    ].filter((column) => column.values.some((value) => value !== null));
    this.search = element("input", { type: "search", placeholder: "Find a client", "aria-label": "Find a client", oninput: () => this.fill() });
    if (clients.name.length > FEW_CLIENTS) controls.append(this.search);
    this.head = element("tr", {}, this.columns.map((column, place) => this.header(column, place)));
    this.body = element("tbody");
    this.more = element("button", { type: "button", class: "more", onclick: () => this.open() }, `Show all ${whole(clients.name.length)}`);
    const table = element("table", {}, element("thead", {}, this.head), this.body);
    holder.append(element("div", { class: "wide", role: "region", "aria-label": "Table of clients", tabindex: "0" }, table), this.more);
    if (clients.of > clients.name.length) {
      holder.append(element("p", { class: "note" }, `The first ${whole(clients.name.length)} of ${whole(clients.of)} clients are shown.`));
    }
    this.fill();
  }

  header(column, place) {
    const sort = () => {
      this.sort = { column: place, down: this.sort.column === place ? !this.sort.down : place > 0 };
      this.fill();
    };
    return element("th", { scope: "col" }, element("button", { type: "button", "aria-label": column.label, onclick: sort }, column.name));
  }

  open() {
    this.all = true;
    this.fill();
  }

  fill() {
    const { column, down } = this.sort;
    const values = this.columns[column].values;
    const sought = this.search.value.trim().toLowerCase();
    let order = values.map((_, place) => place).filter((place) => this.clients.name[place].toLowerCase().includes(sought));
    if (column || down) order.sort((a, b) => (down ? -1 : 1) * compare(values[a], values[b]) || a - b);
    const found = order.length;
    if (!this.all) order = order.slice(0, FEW_CLIENTS);
    this.more.hidden = order.length === found;
    [...this.head.children].forEach((cell, place) => {
      if (place === column && (column || down)) cell.setAttribute("aria-sort", down ? "descending" : "ascending");
      else cell.removeAttribute("aria-sort");
    });
    const most = this.columns.map((one) => (one.bar ? one.values.reduce((a, b) => Math.max(a, b), 0) : 0));
    this.body.replaceChildren(...order.map((row) => element("tr", {}, this.columns.map((one, place) => this.cell(one, row, most[place])))));
  }

  cell(column, row, most) {
    const value = column.values[row];
    if (!column.words) return element("th", { scope: "row" }, value);
    if (value === null) return element("td", { class: "zero" }, "–");
    if (!column.bar) return element("td", { class: value ? (column.warn ? "warn" : false) : "zero" }, column.words(value));
    const inner = element("i");
    inner.style.width = `${most ? (100 * value) / most : 0}%`;
    return element("td", { class: "barred" }, column.words(value), element("span", { class: "meter", "aria-hidden": "true" }, inner));
  }
}

function compare(a, b) {
  if (a === null || b === null) return (a === null ? 0 : 1) - (b === null ? 0 : 1);
  return typeof a === "string" ? a.localeCompare(b, "en", { numeric: true }) : a - b;
}

function slowest(holder, clients) {
  const shown = clients.slowest;
  if (!shown.length) return;
  const most = shown[0].mean;
  const rows = shown.map((client) => {
    const bar = element("i");
    bar.style.width = `${most ? (100 * client.mean) / most : 0}%`;
    const meter = element("span", { class: "meter", "aria-hidden": "true" }, bar);
    return element("tr", {}, element("th", { scope: "row" }, client.name),
      element("td", { class: "barred" }, duration(client.mean), meter),
      element("td", {}, duration(client.longest)), element("td", {}, client.last === null ? "–" : percent(client.last, 2)));
  });
  const names = ["Slowest clients", "Mean", "Longest", "Last to answer"];
  const head = element("tr", {}, names.map((name) => element("th", { scope: "col" }, name)));
  const table = element("table", {}, element("thead", {}, head), element("tbody", {}, rows));
  holder.append(element("div", { class: "wide", role: "region", "aria-label": "Slowest clients", tabindex: "0" }, table));
}
