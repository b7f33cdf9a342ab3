// The picture of the empty page: a pineapple of 64 tiles, laid as a run lays its codes.

import { at, make } from "./element.js";

const TILES = `
..g..g..
...gg...
..gggg..
..bdbd..
.bdbdbd.
.dbdbdb.
.bdbdbd.
..dbdb..`.trim().split("\n");
const NAMES = { ".": "paper", g: "leaf", b: "light", d: "dark" };

/** Lay the tiles. */
export function layMosaic() {
  const tiles = TILES.join("").split("").map((letter, place) => {
    const tile = make("i", { class: NAMES[letter] });
    tile.style.setProperty("--place", place);
    return tile;
  });
  at("mosaic").replaceChildren(...tiles);
}
