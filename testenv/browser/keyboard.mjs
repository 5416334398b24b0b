// walk presses Tab from the top of the page until it has come round, and returns what is wrong: controls that were not
// reached, or that do not show that they have the focus.
export async function walk(page) {
  const controls = await page.evaluate(mark);
  await page.evaluate(toTop);
  const reached = new Set();
  const wrong = [];
  for (let n = 0; n <= controls.length; n++) {
    await page.keyboard.press("Tab");
    const at = await page.evaluate(seen);
    if (!at || reached.has(at.key)) break;
    reached.add(at.key);
    if (!at.outlined) wrong.push(`${at.name} has no outline when it has the focus`);
    if (!at.inView) wrong.push(`${at.name} is out of sight when it has the focus`);
  }
  wrong.push(...controls.filter((c) => !reached.has(c.key)).map((c) => `${c.name} is not reached`));
  return wrong;
}

// toTop gives the focus to the page itself: without that, Tab goes on from where the focus was last.
function toTop() {
  document.body.tabIndex = -1;
  document.body.focus();
  document.body.removeAttribute("tabindex");
}

// mark numbers every visible control, and lists them.
function mark() {
  const controls = [...document.querySelectorAll("a[href], button, input, select, textarea, summary, [tabindex='0']")];
  return controls.filter((c) => c.checkVisibility()).map((c, i) => {
    c.dataset.walk = i;
    return { key: String(i), name: c.outerHTML.slice(0, 100) };
  });
}

// seen describes what has the focus.
function seen() {
  const at = document.activeElement;
  if (!at || at === document.body) return null;
  const style = getComputedStyle(at);
  const box = at.getBoundingClientRect();
  return {
    key: at.dataset.walk ?? at.outerHTML, name: at.outerHTML.slice(0, 100),
    outlined: style.outlineStyle !== "none" && parseFloat(style.outlineWidth) >= 2,
    inView: box.right > 0 && box.left < innerWidth && box.bottom > 0 && box.top < innerHeight,
  };
}
