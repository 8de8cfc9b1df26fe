// Texts that stand out too little from what is behind them, the first ten: WCAG 2.2, 1.4.3 asks for 4.5, and for 3
// where letters are large. The body of a function.
function numbers(css) {
  return css.match(/[\d.]+/g).map(Number);
}

function light(css) {
  const linear = numbers(css).slice(0, 3).map((each) => each / 255)
    .map((each) => (each <= 0.04045 ? each / 12.92 : ((each + 0.055) / 1.055) ** 2.4));
  return 0.2126 * linear[0] + 0.7152 * linear[1] + 0.0722 * linear[2];
}

function behind(element) {
  for (let each = element; each; each = each.parentElement) {
    const colour = getComputedStyle(each).backgroundColor;
    if (numbers(colour)[3] !== 0) return colour;
  }
  return "rgb(255, 255, 255)";
}

function isText(element) {
  const own = [...element.childNodes].some((node) => node.nodeType === Node.TEXT_NODE && node.data.trim());
  return own && element.checkVisibility() && !element.closest(".hidden, .skip, option");
}

const found = [];
for (const element of [...document.querySelectorAll("body *")].filter(isText)) {
  const style = getComputedStyle(element);
  const [dark, bright] = [light(style.color), light(behind(element))].sort((one, other) => one - other);
  const size = parseFloat(style.fontSize);
  const large = size >= 24 || (size >= 18.66 && style.fontWeight >= 700);
  const ratio = (bright + 0.05) / (dark + 0.05);
  if (ratio < (large ? 3 : 4.5)) found.push(`${element.outerHTML.slice(0, 80)} ${ratio.toFixed(2)}`);
}
return found.slice(0, 10);
