// Equations, numbers and curves that belong together: pointing at one, or reaching it by keyboard, marks them all.

// Calls `show` with the link ("paper alpha") that is pointed at, or with undefined.
export function follow(root, show) {
  const linked = (event) => event.target.closest?.("[data-link]")?.dataset.link;
  const mark = (link) => {
    for (const element of root.querySelectorAll(".linked")) element.classList.remove("linked");
    if (link) for (const element of root.querySelectorAll(`[data-link="${link}"]`)) element.classList.add("linked");
    show(link);
  };
  const focused = () => document.activeElement?.closest?.("[data-link]")?.dataset.link;
  for (const name of ["pointerover", "focusin"]) root.addEventListener(name, (event) => mark(linked(event) ?? focused()));
  root.addEventListener("focusout", () => mark(undefined));
  root.addEventListener("pointerleave", () => mark(focused()));
}

// One stop of the Tab key for a list; the arrows move inside.
export function rove(list) {
  const items = () => Array.from(list.querySelectorAll("[data-link]"));
  items().forEach((item, i) => { item.tabIndex = i ? -1 : 0; });
  list.addEventListener("keydown", (event) => {
    const by = { ArrowDown: 1, ArrowRight: 1, ArrowUp: -1, ArrowLeft: -1 }[event.key];
    const all = items();
    const next = all[all.indexOf(document.activeElement) + by];
    if (!by || !next) return;
    event.preventDefault();
    all.forEach((item) => { item.tabIndex = -1; });
    next.tabIndex = 0;
    next.focus();
  });
}
