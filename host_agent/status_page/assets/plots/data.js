// The figures behind the plots. Pure: no clock, no document.

// How far back each range goes, in seconds.
export const SPANS_S = { hour: 3600, day: 86400, week: 7 * 86400 };
const GAP_STEPS = 3; // a pause of more than this many steps between two points is a gap

// Returns {times, series} of a body of GET /history, with an unknown point in each gap, so that no line crosses it.
export function withGaps({ times, series, step_s }) {
  const names = Object.keys(series);
  const result = { times: [], series: Object.fromEntries(names.map((name) => [name, []])), step_s };
  times.forEach((time, index) => {
    const values = Object.fromEntries(names.map((name) => [name, series[name][index]]));
    append(result, time, values);
  });
  return result;
}

// Adds one point in place. Series that the point does not have are unknown in it.
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

// Drops the points before `start` in place.
export function trim(history, start) {
  let old = history.times.findIndex((time) => time >= start);
  if (old < 0) old = history.times.length;
  if (old === 0) return;
  history.times.splice(0, old);
  for (const each of Object.values(history.series)) each.splice(0, old);
}

// Returns the sums of each series and all before it: [[1], [2]] -> [[1], [3]]. A sum of unknown values only is unknown.
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

// Returns the marks of the history and of the incidents, each moment and service once, oldest first.
export function marksOf(marks, incidents, start) {
  const found = (incidents || []).map((each) => ({ ts: each.began_at, service: each.services?.[0] ?? "", title: each.title }));
  for (const mark of marks || []) {
    if (!found.some((each) => Math.abs(each.ts - mark.ts) < 2)) found.push(mark);
  }
  return found.filter((mark) => mark.ts >= start).sort((a, b) => a.ts - b.ts);
}
