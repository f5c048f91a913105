/*
 * `varve doctor`: runs all checks, prints a line for each, exits 1 when one fails. Reads nothing of the volumes and may
 * run beside a server on the same data directory.
 */
import { existsSync, readFileSync, statSync } from "node:fs";
import { resolve } from "node:path";
import { NativeFileStore } from "#shared/adapters/file-store/native.ts";
import { dataLayout } from "#shared/domain/data-layout.ts";
import { toVarveError } from "#shared/domain/errors.ts";
import { ConfigReader } from "#shared/shell/config.ts";
import type { CommandLine } from "../command-line.ts";
import { diskChecks } from "../doctor/disk-checks.ts";
import { type Finding, fail, ok } from "../doctor/finding.ts";
import { existingParent, historyChecks } from "../doctor/history-checks.ts";
import { checkAddress } from "../doctor/port-checks.ts";
import { systemChecks } from "../doctor/system-checks.ts";
import { printJson, printLine, table } from "../output.ts";

const defaultData = "./varve-data";

export async function doctor(line: CommandLine): Promise<number> {
  const config = new ConfigReader(line, "doctor");
  const nbd = config.nbd();
  const http = config.http();
  const bucket = config.bucket();
  const { bucketBytesMax } = config.past();
  config.finish();
  const data = line.values.get("data")?.[0] ?? defaultData;
  const serverPid = holderOf(data);
  const findings = [
    ...systemChecks(),
    ...(await dataChecks(data, serverPid)),
    ...(await historyChecks(resolve(data), bucket, bucketBytesMax)),
  ];
  for (const address of nbd) findings.push(await checkAddress("--nbd", address, serverPid));
  if (http !== null) findings.push(await checkAddress("--http", http, serverPid));
  const failed = findings.some((finding) => finding.verdict === "fail");
  if (line.values.has("json")) printJson({ ok: !failed, findings });
  else printLine(report(findings));
  return failed ? 1 : 0;
}

async function dataChecks(data: string, serverPid: number | null): Promise<readonly Finding[]> {
  const place = existingParent(resolve(data));
  const subject = "data directory";
  if (!statSync(place).isDirectory()) {
    return [fail(subject, `${place} is a file`, "Give --data a directory, or a path where one can be made.")];
  }
  const first = existsSync(data)
    ? ok(subject, serverPid === null ? data : `${data}, served by pid ${serverPid}`)
    : ok(subject, `${data} does not exist yet; checked ${place}`);
  const store = new NativeFileStore();
  try {
    return [first, ...(await diskChecks(store, place, place))];
  } catch (cause) {
    const error = toVarveError(cause, "check the disk");
    return [fail(subject, error.message, "Varve must be able to make and write files there.")];
  } finally {
    await store.close();
  }
}

/** Pid of the server that holds the data directory, or null. The lock file keeps the pid of the last one, so ask /proc. */
function holderOf(data: string): number | null {
  const path = `${data}/${dataLayout.lock}`;
  if (!existsSync(path)) return null;
  const inode = statSync(path).ino;
  const locks = readFileSync("/proc/locks", "utf8").split("\n");
  if (!locks.some((one) => one.includes(` OFDLCK `) && one.includes(`:${inode} `))) return null;
  const pid = Number.parseInt(readFileSync(path, "utf8"), 10);
  return Number.isSafeInteger(pid) ? pid : null;
}

function report(findings: readonly Finding[]): string {
  const rows = findings.flatMap((finding) => [
    { verdict: finding.verdict, subject: finding.subject, text: finding.found },
    ...(finding.advice === undefined ? [] : [{ verdict: "", subject: "", text: `→ ${finding.advice}` }]),
  ]);
  const lines = table(
    [
      { title: "", cell: (row) => row.verdict },
      { title: "", cell: (row) => row.subject },
      { title: "", cell: (row) => row.text },
    ],
    rows,
  );
  const count = (verdict: string): number => findings.filter((finding) => finding.verdict === verdict).length;
  return `${lines.trimStart()}\n\n${count("ok")} ok, ${count("warn")} to look at, ${count("fail")} failed`;
}
