/*
 * What commands print: tables and pairs for people, JSON for programs, errors with their hint on stderr. Every command
 * goes through here, so that --json means the same everywhere. Plain text, no colours: it is read in logs as often as in
 * terminals.
 */
import { errorBody } from "#shared/api/error-body.ts";
import type { VarveError } from "#shared/domain/errors.ts";

export function printLine(text = ""): void {
  process.stdout.write(`${text}\n`);
}

export function printNote(text: string): void {
  process.stderr.write(`${text}\n`);
}

export function printJson(value: unknown): void {
  printLine(
    JSON.stringify(
      value,
      (_key, field: unknown) => (typeof field === "bigint" ? field.toString() : field),
      2,
    ),
  );
}

export interface Column<Row> {
  readonly title: string;
  readonly right?: boolean;
  readonly cell: (row: Row) => string;
}

/** Columns as wide as their widest cell, two spaces between; no trailing blanks. */
export function table<Row>(columns: readonly Column<Row>[], rows: readonly Row[]): string {
  const lines = [
    columns.map((column) => column.title),
    ...rows.map((row) => columns.map((column) => column.cell(row))),
  ];
  const widths = columns.map((_, index) => Math.max(...lines.map((cells) => (cells[index] ?? "").length)));
  return lines
    .map((cells) =>
      cells
        .map((cell, index) =>
          columns[index]?.right === true
            ? cell.padStart(widths[index] ?? 0)
            : cell.padEnd(widths[index] ?? 0),
        )
        .join("  ")
        .trimEnd(),
    )
    .join("\n");
}

/** `name   value` lines; pairs with a null value are left out. */
export function pairs(rows: readonly (readonly [string, string | null])[]): string {
  const shown = rows.filter(([, value]) => value !== null);
  const width = Math.max(...shown.map(([name]) => name.length));
  return shown.map(([name, value]) => `${name.padEnd(width)}  ${value ?? ""}`).join("\n");
}

export function printError(error: VarveError, json: boolean): void {
  if (json) {
    printNote(JSON.stringify({ error: errorBody(error) }));
    return;
  }
  for (const line of error.message.split("\n")) printNote(`varve: ${line}`);
  if (error.hint !== "") printNote(`hint: ${error.hint}`);
  if (error.kind === "Internal") for (const line of causes(error)) printNote(`because: ${line}`);
}

/** What lies under an error of our own; users report these, so the first frame is worth its line. */
function causes(error: Error): string[] {
  const lines: string[] = [];
  let cause: unknown = error.cause;
  while (cause instanceof Error && lines.length < 5) {
    const frame = cause.stack?.split("\n").find((line) => line.trimStart().startsWith("at "));
    lines.push(frame === undefined ? cause.message : `${cause.message} (${frame.trim()})`);
    cause = cause.cause;
  }
  return lines;
}
