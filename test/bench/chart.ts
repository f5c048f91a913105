// Draws docs/bench/one-machine.svg: one bar per case and peer, the ratio on a logarithmic axis, the range of the pairs as a
// whisker and the target as a tick. Caller: report.ts. Pure; no library, so the picture is the same on every machine.

import { type BenchResult, ratioVerdict } from "./results.ts";

export interface ChartText {
  readonly title: string;
  readonly subtitle: string;
}

const width = 980;
const labelWidth = 430;
const rightMargin = 110;
const rowHeight = 30;
const top = 78;
const axisMin = 0.25;
const axisMax = 16;

export function drawChart(
  result: Pick<BenchResult, "ratios" | "pairs">,
  text: ChartText = oneMachine(result.pairs),
): string {
  const height = top + result.ratios.length * rowHeight + 46;
  const parts: string[] = [
    `<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 ${width} ${height}" font-family="system-ui, sans-serif" font-size="12">`,
    `<rect width="${width}" height="${height}" fill="#ffffff"/>`,
    `<text x="16" y="26" font-size="17" font-weight="600" fill="#1c1917">${escape(text.title)}</text>`,
    `<text x="16" y="46" fill="#57534e">${escape(text.subtitle)}</text>`,
  ];
  for (const mark of [0.25, 0.5, 1, 2, 4, 8, 16]) {
    const x = xOf(mark);
    const stroke = mark === 1 ? "#78716c" : "#e7e5e4";
    parts.push(
      `<line x1="${x}" y1="${top - 8}" x2="${x}" y2="${height - 34}" stroke="${stroke}"/>`,
      `<text x="${x}" y="${height - 18}" text-anchor="middle" fill="#57534e">${mark}×</text>`,
    );
  }
  for (const [index, row] of result.ratios.entries()) {
    const y = top + index * rowHeight;
    const verdict = ratioVerdict(row);
    const from = Math.min(xOf(1), xOf(verdict.median));
    const length = Math.max(1, Math.abs(xOf(verdict.median) - xOf(1)));
    const middle = y + 10;
    const sign = row.sense === "at least" ? "≥" : "≤";
    parts.push(
      `<text x="16" y="${y + 9}" fill="#1c1917">${escape(row.title)}</text>`,
      `<text x="16" y="${y + 21}" font-size="10" fill="#78716c">${escape(row.against)}</text>`,
      `<rect x="${from}" y="${y + 3}" width="${length}" height="14" fill="${verdict.holds ? "#0f766e" : "#b45309"}"/>`,
      `<line x1="${xOf(verdict.min)}" y1="${middle}" x2="${xOf(verdict.max)}" y2="${middle}" stroke="#1c1917" stroke-width="1.5"/>`,
      `<line x1="${xOf(row.target)}" y1="${y - 1}" x2="${xOf(row.target)}" y2="${y + 21}" stroke="#dc2626" stroke-width="2.5"/>`,
      `<text x="${width - rightMargin + 10}" y="${y + 14}" fill="#1c1917">${verdict.median.toFixed(2)}× (${sign} ${row.target})</text>`,
    );
  }
  return `${parts.join("\n")}\n</svg>\n`;
}

function oneMachine(pairs: number): ChartText {
  return {
    title: "Varve against the C servers, one machine",
    subtitle: `Ratio to the peer in the same pair of runs: bar = median of ${pairs}, whisker = range, tick = target. Right of 1× Varve is faster; for the latency row less is better.`,
  };
}

function xOf(ratio: number): number {
  const clamped = Math.min(axisMax, Math.max(axisMin, ratio));
  const share = Math.log(clamped / axisMin) / Math.log(axisMax / axisMin);
  return Math.round((labelWidth + share * (width - labelWidth - rightMargin)) * 10) / 10;
}

function escape(text: string): string {
  return text.replaceAll("&", "&amp;").replaceAll("<", "&lt;").replaceAll(">", "&gt;");
}
