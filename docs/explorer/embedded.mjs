// The page as a part of another one: index.html?show=path,errors has these parts alone, and the settings of its address.

// names: the parts to be shown, with commas between them; null where the page stands alone.
export function embed(names) {
  if (names === null) return;
  document.documentElement.classList.add("embedded");
  for (const part of document.querySelectorAll("[data-part]")) part.hidden = !names.split(",").includes(part.dataset.part);
  document.getElementById("whole").hidden = false;
  const frame = window.frameElement; // null where the page around comes from elsewhere
  if (!frame) return;
  new ResizeObserver(() => { frame.style.height = `${document.body.offsetHeight + 2}px`; }).observe(document.body);
  const around = frame.ownerDocument.documentElement; // has a switch between light and dark
  const follow = () => { document.documentElement.style.colorScheme = getComputedStyle(around).colorScheme; };
  new MutationObserver(follow).observe(around, { attributes: true });
  follow();
}
