// `npm run test:s3`: each S3 server in turn, or the named ones: the contract suite, the probe, and kill -9 in the middle of puts. Prints
// a table of what each can do; with `--write` it replaces the one in docs/specs/object-store.md. Last line: `N passed, N failed`.
import { readFile, writeFile } from "node:fs/promises";
import { join } from "node:path";
import { SystemClock, SystemRandom } from "#shared/adapters/clock/system.ts";
import { openObjectStore } from "#shared/adapters/object-store/open-object-store.ts";
import type { ObjectStore } from "#shared/ports/object-store.ts";
import { root, runStep, vitest } from "../../scripts/step.ts";
import { type S3ServerName, serverPrograms } from "../tools/s3-server-programs.ts";
import { S3Server } from "../tools/s3-servers.ts";

const page = join(root, "docs", "specs", "object-store.md");
const names = Object.keys(serverPrograms) as S3ServerName[];
const titles: Readonly<Record<S3ServerName, string>> = {
  seaweedfs: "SeaweedFS",
  versitygw: "VersityGW",
  minio: "MinIO",
  ceph: "Ceph RGW",
};

interface Findings {
  readonly name: S3ServerName;
  readonly passed: number;
  readonly failed: number;
  readonly conditionalPut: boolean;
  readonly answered: number;
  readonly lost: number;
  readonly backAfterMs: number;
  readonly writesAfterMs: number;
}

/** Puts until the server is killed under them, and looks what became of those that were answered. */
async function killWhilePutting(
  server: S3Server,
  store: ObjectStore,
): Promise<Pick<Findings, "answered" | "lost" | "backAfterMs" | "writesAfterMs">> {
  const answered: string[] = [];
  const load = { goesOn: true };
  const contentOf = (key: string): Buffer => Buffer.alloc(100_000, key);
  const lane = async (number: number): Promise<void> => {
    for (let index = 0; load.goesOn; index += 1) {
      const key = `kill/${number}-${index}`;
      await store.put(key, contentOf(key));
      answered.push(key);
    }
  };
  // A server that needs long to come back fails the puts under way: those were not answered.
  const lanes = Promise.allSettled([1, 2, 3, 4].map(lane));
  await new Promise((resolve) => {
    setTimeout(resolve, 1_500);
  });
  await server.kill();
  const before = [...answered];
  load.goesOn = false;
  const began = performance.now();
  await server.restart();
  const backAfterMs = performance.now() - began;
  await lanes;
  await store.put("kill/again", contentOf("again"));
  const writesAfterMs = performance.now() - began;
  let lost = 0;
  for (const key of before) if ((await store.get(key))?.equals(contentOf(key)) !== true) lost += 1;
  return { answered: before.length, lost, backAfterMs, writesAfterMs };
}

async function survey(name: S3ServerName): Promise<Findings> {
  // A build's minutes are not the suite's.
  await serverPrograms[name].binary();
  process.env["VARVE_TEST_S3_SERVERS"] = name;
  const step = `s3 contract on ${name}`;
  const suite = await runStep({
    name: step,
    command: [...vitest(step, ["s3"]), "test/s3/contract.test.ts"],
    count: "vitest",
    timeoutMs: 10 * 60_000,
  });
  if (suite.failed > 0) console.log(suite.output);
  const server = await S3Server.start(name);
  try {
    const store = await openObjectStore(server.url("survey"), {
      clock: new SystemClock(),
      random: new SystemRandom(),
      environment: server.env,
    });
    const { conditionalPut } = await store.probe();
    const kill = await killWhilePutting(server, store);
    await store.close();
    return { name, passed: suite.passed, failed: suite.failed, conditionalPut, ...kill };
  } finally {
    await server.stop();
  }
}

function tableOf(found: readonly Findings[]): string {
  const rows = found.map((each) => {
    const total = each.passed + each.failed;
    const kept = each.answered - each.lost;
    const cells = [
      titles[each.name],
      serverPrograms[each.name].version,
      `${each.passed} of ${total}`,
      each.conditionalPut ? "one wins" : "not to be relied on",
      `${kept} of ${each.answered}`,
      `${(each.backAfterMs / 1000).toFixed(1)} s`,
      `${(each.writesAfterMs / 1000).toFixed(1)} s`,
    ];
    return `| ${cells.join(" | ")} |`;
  });
  return [
    "| server | version | contract suite | conditional put, concurrent | answered puts there after kill -9 | serves again after | takes puts again after |",
    "| --- | --- | --- | --- | --- | --- | --- |",
    ...rows,
  ].join("\n");
}

const asked = process.argv.slice(2);
const wrong = asked.filter((word) => word !== "--write" && !names.includes(word as S3ServerName));
if (wrong.length > 0) {
  console.error(`no such server: ${wrong.join(", ")}; servers: ${names.join(", ")}`);
  process.exit(2);
}
const chosen = names.filter((name) => asked.includes(name) || asked.every((word) => word === "--write"));
const found: Findings[] = [];
let [passed, failed] = [0, 0];
for (const name of chosen) {
  console.log(`--- ${titles[name]}`);
  try {
    const findings = await survey(name);
    found.push(findings);
    passed += findings.passed + (findings.lost === 0 ? 1 : 0);
    failed += findings.failed + (findings.lost === 0 ? 0 : 1);
  } catch (error) {
    console.error(error instanceof Error ? error.message : String(error));
    failed += 1;
  }
}
const table = tableOf(found);
console.log(`\n${table}\n`);
if (asked.includes("--write")) {
  const text = await readFile(page, "utf8");
  const marks = /(<!-- servers: begin -->)[^]*(<!-- servers: end -->)/;
  await writeFile(page, text.replace(marks, `$1\n${table}\n$2`));
}
console.log(`${passed} passed, ${failed} failed`);
process.exitCode = failed === 0 ? 0 : 1;
