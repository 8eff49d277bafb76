// The keys that turn the slides. Without this the deck scrolls, slide by slide.
const slides = Array.from(document.querySelectorAll("section"));
const KEYS = { ArrowRight: 1, ArrowDown: 1, PageDown: 1, " ": 1, ArrowLeft: -1, ArrowUp: -1, PageUp: -1, Home: -Infinity, End: Infinity };

function shown() {
  return slides.findIndex((slide) => slide.getBoundingClientRect().bottom > innerHeight / 2);
}

function show(number) {
  const slide = slides[Math.min(Math.max(number, 0), slides.length - 1)];
  slide.scrollIntoView();
  history.replaceState(null, "", `#${slide.id}`);
}

addEventListener("keydown", (event) => {
  if (event.altKey || event.ctrlKey || event.metaKey) return;
  const turn = event.key === " " && event.shiftKey ? -1 : KEYS[event.key];
  if (!turn) return;
  event.preventDefault();
  show(shown() + turn);
});
