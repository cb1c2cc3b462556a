// Prepares the figures that the plots show. Pure: reads no clock and no document.

// How far back each range goes, in seconds.
export const SPANS_S = { hour: 3600, day: 86400, week: 7 * 86400 };
const GAP_STEPS = 3; // two points are separated by a gap if more than this many steps lie between them

// Returns {times, series} of a body of GET /history. Each gap gets a point without values, so that no line crosses it.
export function withGaps({ times, series, step_s }) {
  const names = Object.keys(series);
  const result = { times: [], series: Object.fromEntries(names.map((name) => [name, []])), step_s };
  times.forEach((time, index) => {
    const values = Object.fromEntries(names.map((name) => [name, series[name][index]]));
    append(result, time, values);
  });
  return result;
}

// Appends one point to `history` in place. Series without a value in the point get null.
export function append(history, time, values) {
  const { times, series, step_s } = history;
  const last = times.at(-1);
  if (last !== undefined && time <= last) return;
  if (last !== undefined && time - last > GAP_STEPS * step_s) {
    times.push(last + step_s);
    for (const each of Object.values(series)) each.push(null);
  }
  times.push(time);
  for (const name of Object.keys(series)) series[name].push(values[name] ?? null);
}

// Removes the points before `start` in place.
export function trim(history, start) {
  let old = history.times.findIndex((time) => time >= start);
  if (old < 0) old = history.times.length;
  if (old === 0) return;
  history.times.splice(0, old);
  for (const each of Object.values(history.series)) each.splice(0, old);
}

// Returns the cumulative sums over the series: [[1], [2]] -> [[1], [3]]. A sum of only unknown values is unknown.
export function stacked(columns) {
  const sums = [];
  for (const column of columns) {
    const below = sums.at(-1);
    sums.push(column.map((value, index) => {
      const under = below ? below[index] : null;
      return value == null ? under : value + (under ?? 0);
    }));
  }
  return sums;
}

// Returns {last, most, least, mean} of the known values; null if there are none.
export function figures(column) {
  const known = (column || []).filter((value) => value != null);
  if (!known.length) return null;
  const sum = known.reduce((total, value) => total + value, 0);
  return { last: known.at(-1), most: known.reduce((a, b) => Math.max(a, b)), least: known.reduce((a, b) => Math.min(a, b)), mean: sum / known.length, sum };
}

// Returns the marks of the history and of the incidents, oldest first, without duplicates (same time and service).
export function marksOf(marks, incidents, start) {
  const found = (incidents || []).map((each) => ({ ts: each.began_at, service: each.services?.[0] ?? "", title: each.title }));
  for (const mark of marks || []) {
    if (!found.some((each) => Math.abs(each.ts - mark.ts) < 2)) found.push(mark);
  }
  return found.filter((mark) => mark.ts >= start).sort((a, b) => a.ts - b.ts);
}
