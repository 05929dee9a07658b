// Where each module stands in a map of layers by kinds. Pure, so that drawing and pointing agree.

/** `cells` by row and column hold indices of modules: several where a layer has more of a kind. */
export function gridOf(layers) {
  const rows = [...new Set(layers.map((layer) => layer.layer))].sort(
    (one, other) => (one ?? Infinity) - (other ?? Infinity),
  );
  const kinds = [...new Set(layers.map((layer) => layer.kind))];
  const rowAt = new Map(rows.map((row, i) => [row, i]));
  const kindAt = new Map(kinds.map((kind, i) => [kind, i]));
  const cells = rows.map(() => kinds.map(() => []));
  const places = layers.map((layer, index) => {
    const place = { row: rowAt.get(layer.layer), column: kindAt.get(layer.kind) };
    const cell = cells[place.row][place.column];
    place.at = cell.length;
    cell.push(index);
    return place;
  });
  return { rows, kinds, cells, places };
}

const LEFT = 38;
const GAP = 1;

/** Pixels of everything, for a width. `measure(text)` gives a text's width. */
export function layoutOf(grid, width, measure) {
  const columnWidth = Math.max(4, (width - LEFT) / grid.kinds.length);
  const widest = Math.max(...grid.kinds.map(measure), 0);
  const upright = widest + 6 <= columnWidth;
  const top = upright ? 22 : Math.min(130, widest + 12);
  const rowHeight = Math.max(2, Math.min(24, Math.floor(620 / grid.rows.length)));
  return {
    left: LEFT,
    top,
    columnWidth,
    rowHeight,
    upright,
    width,
    height: top + rowHeight * grid.rows.length + 2,
  };
}

/** The box of one module's strip. */
export function boxOf(grid, layout, index) {
  const { row, column, at } = grid.places[index];
  const strips = grid.cells[row][column].length;
  const width = (layout.columnWidth - GAP) / strips;
  return {
    x: layout.left + column * layout.columnWidth + at * width,
    y: layout.top + row * layout.rowHeight,
    width: Math.max(width - (strips > 1 && width > 3 ? 0.5 : 0), 0.5),
    height: layout.rowHeight - (layout.rowHeight > 4 ? GAP : 0),
  };
}

export function indexAt(grid, layout, x, y) {
  const row = Math.floor((y - layout.top) / layout.rowHeight);
  const along = (x - layout.left) / layout.columnWidth;
  const cell = grid.cells[row]?.[Math.floor(along)];
  if (!cell?.length || along < 0) return null;
  return cell[Math.min(cell.length - 1, Math.floor((along % 1) * cell.length))];
}

/** The module that an arrow key leads to; over gaps to the next that is there. */
export function beside(grid, index, key) {
  const { row, column, at } = grid.places[index];
  const cell = grid.cells[row][column];
  if (key === "ArrowRight" && at + 1 < cell.length) return cell[at + 1];
  if (key === "ArrowLeft" && at > 0) return cell[at - 1];
  const [down, right] = {
    ArrowUp: [-1, 0],
    ArrowDown: [1, 0],
    ArrowLeft: [0, -1],
    ArrowRight: [0, 1],
  }[key];
  for (let r = row + down, c = column + right; grid.cells[r]?.[c]; r += down, c += right) {
    const next = grid.cells[r][c];
    if (next.length)
      return down ? next[Math.min(at, next.length - 1)] : next[right > 0 ? 0 : next.length - 1];
  }
  return index;
}
