// Elements are made and found here. Text only ever becomes text: nothing is parsed as HTML.

const SVG = "http://www.w3.org/2000/svg";

/**
 * Make an element.
 * @param {string} tag
 * @param {Record<string, any>} [attributes] `class` and attributes; `on` holds listeners by event.
 *   True is an empty attribute; false, null and undefined are left out.
 * @param {...(Node|string|number|null)} children
 * @returns {HTMLElement}
 */
export function make(tag, attributes = {}, ...children) {
  const element = document.createElement(tag);
  for (const [name, value] of Object.entries(attributes)) {
    if (name === "on") {
      for (const event of Object.keys(value)) element.addEventListener(event, value[event]);
    } else if (value !== false && value !== null && value !== undefined) {
      element.setAttribute(name, value === true ? "" : value);
    }
  }
  element.append(...children.filter((child) => child !== null));
  return element;
}

/**
 * Make an icon of the page's sprite.
 * @param {string} name
 * @returns {SVGElement}
 */
export function icon(name) {
  const svg = document.createElementNS(SVG, "svg");
  svg.setAttribute("class", "icon");
  svg.setAttribute("aria-hidden", "true");
  const use = document.createElementNS(SVG, "use");
  use.setAttribute("href", `#i-${name}`);
  svg.append(use);
  return svg;
}

/**
 * Make a button.
 * @param {string|Node} content
 * @param {() => void} pressed
 * @param {Record<string, any>} [attributes]
 * @returns {HTMLElement}
 */
export function button(content, pressed, attributes = {}) {
  return make("button", { type: "button", on: { click: pressed }, ...attributes }, content);
}

/**
 * Find an element of the page by its id.
 * @param {string} id
 * @returns {HTMLElement}
 */
export function at(id) {
  return document.getElementById(id);
}

/**
 * Say something to those who listen to the page: one polite line.
 * @param {string} words
 */
export function announce(words) {
  at("announce").textContent = words;
}

/**
 * Whether movement is wanted.
 * @returns {boolean}
 */
export function moves() {
  return !matchMedia("(prefers-reduced-motion: reduce)").matches;
}
