// The linter's import table, tried out: for each folder, imports and globals that it must refuse and ones that it must
// let pass. .oxlintrc.json is what is tested; the samples live in a scratch project that has a copy of it, because the
// table goes by folder names. Without this, a typo in a pattern would switch a rule off unnoticed.
import { execFile } from "node:child_process";
import { cpSync, mkdirSync, mkdtempSync, rmSync, symlinkSync, writeFileSync } from "node:fs";
import { tmpdir } from "node:os";
import { dirname, join } from "node:path";
import { fileURLToPath } from "node:url";
import { afterAll, beforeAll, expect, test } from "vitest";

const root = dirname(dirname(dirname(fileURLToPath(import.meta.url))));

type Sample = { readonly file: string; readonly line: string; readonly refused: boolean };
const refuse = (file: string, line: string): Sample => ({ file, line, refused: true });
const allow = (file: string, line: string): Sample => ({ file, line, refused: false });
const use = (from: string): string => `import { x } from "${from}"; export const y = x;`;

const samples: readonly Sample[] = [
  allow("shared/domain", use("./lsn.ts")),
  refuse("shared/domain", use("node:fs")),
  refuse("shared/domain", use("effect/Effect")),
  refuse("shared/domain", use("msgpackr")),
  refuse("shared/domain", use("#shared/formats/batch.ts")),
  refuse("shared/domain", use("../ports/clock.ts")),
  refuse("shared/domain", "export const y = Date.now();"),
  refuse("shared/domain", "export const y = new Date(0);"),
  refuse("shared/domain", "export const y = Math.random();"),
  refuse("shared/domain", "export const y = setTimeout(String, 1);"),
  allow("shared/formats", use("#shared/domain/lsn.ts")),
  allow("shared/formats", use("msgpackr")),
  allow("shared/formats", use("@node-rs/xxhash")),
  allow("shared/formats", 'import { hash } from "node:crypto"; export const y = hash;'),
  allow("shared/formats", 'import { createHash } from "node:crypto"; export const y = createHash;'),
  allow("shared/formats", 'import { constants } from "node:zlib"; export const y = constants;'),
  refuse("shared/formats", 'import { randomBytes } from "node:crypto"; export const y = randomBytes;'),
  refuse("shared/formats", 'import { createGzip } from "node:zlib"; export const y = createGzip;'),
  refuse("shared/formats", use("node:cluster")),
  refuse("shared/formats", use("node:fs")),
  refuse("shared/formats", use("node:net")),
  refuse("shared/formats", use("effect/Schema")),
  refuse("shared/formats", use("koffi")),
  refuse("shared/formats", use("#shared/ports/clock.ts")),
  refuse("shared/formats", "export const y = performance.now();"),
  allow("shared/ports", use("#shared/domain/lsn.ts")),
  refuse("shared/ports", use("node:fs")),
  refuse("shared/ports", use("../adapters/clock/system.ts")),
  allow("shared/adapters/clock", use("#shared/ports/clock.ts")),
  allow("shared/adapters/clock", use("./own.ts")),
  allow("shared/adapters/clock", use("node:fs")),
  refuse("shared/adapters/clock", use("effect/Effect")),
  refuse("shared/adapters/clock", use("../write-log/memory.ts")),
  refuse("shared/adapters/clock", use("#shared/adapters/write-log/memory.ts")),
  refuse("shared/adapters/clock", use("#shared/shell/config.ts")),
  refuse("shared/adapters/clock", use("../../../services/gateway/engine/session.ts")),
  allow("shared/shell", use("effect/Effect")),
  refuse("shared/shell", use("effect")),
  refuse("shared/shell", use("../../services/gateway/layer.ts")),
  allow("services/gateway/engine", use("#shared/ports/clock.ts")),
  refuse("services/gateway/engine", use("effect/Effect")),
  refuse("services/gateway/engine", use("@effect/platform-node/NodeRuntime")),
  refuse("services/gateway/engine", use("#shared/adapters/clock/system.ts")),
  refuse("services/gateway/engine", use("#shared/shell/config.ts")),
  refuse("services/gateway/engine", use("../../storage/engine/applier.ts")),
  refuse("services/gateway/engine", "export const y = Date.now();"),
  refuse("services/gateway/engine", "export const y = Math.random();"),
  refuse("services/gateway/engine", "console.log(1);"),
  allow("services/gateway", use("effect/Effect")),
  allow("services/gateway", use("./engine/session.ts")),
  refuse("services/gateway", use("effect")),
  refuse("services/gateway", use("../storage/layer.ts")),
  allow("services/cli", use("../storage/layer.ts")),
  refuse("services/cli", use("../storage/engine/applier.ts")),
  refuse("services/gateway", "const f = async (): Promise<void> => { await Promise.resolve(); }; f();"),
];
const fileOf = (index: number): string => join(samples[index]?.file ?? "", `sample-${index}.ts`);

let scratch = "";
const refused = new Set<string>();

beforeAll(async () => {
  scratch = mkdtempSync(join(tmpdir(), "varve-import-table-"));
  for (const file of [".oxlintrc.json", "tsconfig.json", "package.json"])
    cpSync(join(root, file), join(scratch, file));
  symlinkSync(join(root, "node_modules"), join(scratch, "node_modules"));
  for (const [index, sample] of samples.entries()) {
    mkdirSync(join(scratch, sample.file), { recursive: true });
    writeFileSync(join(scratch, fileOf(index)), `${sample.line}\n`);
  }
  const report = await lint(scratch);
  for (const { filename, code } of report.diagnostics) {
    if (/no-restricted|no-console|no-floating/.test(code)) refused.add(filename);
  }
});

afterAll(() => {
  rmSync(scratch, { recursive: true, force: true });
});

test.each(samples.map((sample, index) => ({ ...sample, index })))(
  "$file: $line (refused: $refused)",
  (sample) => {
    expect(refused.has(fileOf(sample.index))).toBe(sample.refused);
  },
);

type Report = { readonly diagnostics: readonly { readonly filename: string; readonly code: string }[] };

/** oxlint exits with 1 when it finds something, which it must here. */
function lint(folder: string): Promise<Report> {
  return new Promise((resolve, reject) => {
    const oxlint = join(root, "node_modules", ".bin", "oxlint");
    execFile(process.execPath, [oxlint, "-f", "json"], { cwd: folder }, (error, stdout, stderr) => {
      if (error === null || error.code !== 1)
        reject(new Error(`oxlint found nothing: ${stderr}`, { cause: error }));
      else resolve(JSON.parse(stdout) as Report);
    });
  });
}
