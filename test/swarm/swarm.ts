// Command line of the swarm: npm run swarm -- --minutes 10 [--volumes 16] [--bucket s3|directory]
// Prints what it sees every few seconds, writes docs/bench/swarm.{json,md}; exit code 1 on any wrong byte, error, request above 2 s or
// growing memory.

import { mkdirSync, writeFileSync } from "node:fs";
import { join } from "node:path";
import { parseArgs } from "node:util";
import { S3Server, s3ServerLight } from "../tools/s3-servers.ts";
import { repositoryDir } from "../tools/varve-process.ts";
import { runSwarm, type SwarmResult } from "./swarm-run.ts";
import { boundOf, type Step } from "./swarm-volume.ts";

const { values: flags } = parseArgs({
  options: {
    minutes: { type: "string", default: "10" },
    volumes: { type: "string", default: "16" },
    bucket: { type: "string", default: "s3" },
  },
});
const minutes = Number(flags.minutes);
const volumes = Number(flags.volumes);
if (!(minutes > 0) || !(volumes >= 1) || !["s3", "directory"].includes(flags.bucket)) {
  console.error("swarm: npm run swarm -- --minutes 10 --volumes 16 --bucket s3 (or directory)");
  process.exit(64);
}
// Servers and their data go with this process: exit hooks run only where it exits by itself.
process.on("SIGINT", () => process.exit(130));
process.on("SIGTERM", () => process.exit(143));

const stallMs = 2000;
const s3 = flags.bucket === "s3" ? await S3Server.start(s3ServerLight) : null;
const measuredAt = new Date().toISOString();
const result = await runSwarm({
  seconds: minutes * 60,
  volumes,
  bucket: s3 === null ? null : { url: s3.url(), env: s3.env },
  stallMs,
  onSample: (text) => console.log(text),
});
await s3?.stop();
const where = s3 === null ? "a directory on the same disk" : `${s3.name} ${s3.version} on the same machine`;
const docs = join(repositoryDir, "docs", "bench");
mkdirSync(docs, { recursive: true });
writeFileSync(
  join(docs, "swarm.json"),
  `${JSON.stringify({ measuredAt, bucket: where, ...result }, null, 1)}\n`,
);
writeFileSync(join(docs, "swarm.md"), page(result));
console.log(page(result));
for (const failure of result.failures) console.error(`swarm: ${failure}`);
process.exitCode = result.failures.length === 0 ? 0 : 1;

function page({
  counts,
  times,
  memory,
  rssPeakMiB,
  failures,
  samples,
  fileSystemVolumes,
}: SwarmResult): string {
  const number = (value: number): string => Math.round(value).toLocaleString("en");
  const line = (step: Step): string => {
    const { count, worstMs } = times[step];
    return `| ${step} | ${number(count)} | ${boundOf(times[step], 0.5)} | ${boundOf(times[step], 0.99)} | ${number(worstMs)} |`;
  };
  const flat =
    memory === null
      ? "too short to judge its growth"
      : `${memory.firstMiB} MiB in the first third after a quarter of warm-up, ${memory.lastMiB} MiB in the last (at most ${memory.allowedMiB})`;
  const every = Math.max(1, Math.ceil(samples.length / 20));
  const shown = samples.filter((_, index) => index % every === every - 1);
  return `# Swarm: ${volumes} volumes, ${minutes} minutes

Written by \`npm run swarm -- --minutes ${minutes} --volumes ${volumes}\` from [swarm.json](swarm.json); measured ${measuredAt}; bucket: ${where}.
${failures.length === 0 ? `Passed: no error, nothing above ${stallMs / 1000} s.` : "**Failed.**"}

${volumes - fileSystemVolumes} volumes under block checkers, ${fileSystemVolumes} with ext4 images by nbdcopy and e2fsck, all at once on one server: ${number(counts.bytesWritten / 2 ** 20)} MiB written,
${number(counts.snapshots)} snapshots, ${number(counts.pointsVerified)} points opened under load and judged byte by byte, ${number(counts.pointsReread)} older ones opened again, ${number(counts.fileSystems)} file systems checked. At the
end a kill -9: all volumes and kept snapshots judged again, \`varve bucket check\` without a finding.

| step | count | p50 ms (at most) | p99 ms (at most) | worst ms |
| --- | ---: | ---: | ---: | ---: |
${(["request", "snapshot", "point open"] as const).map(line).join("\n")}

Memory of the server: peak ${rssPeakMiB} MiB; ${flat}.

| s | RSS MiB | fds | CPU % |
| ---: | ---: | ---: | ---: |
${shown.map((sample) => `| ${sample.atSeconds} | ${sample.rssMiB} | ${sample.fds} | ${sample.cpuPercent} |`).join("\n")}
${failures.length === 0 ? "" : `\n## Failures\n\n${failures.map((failure) => `- ${failure}`).join("\n")}\n`}`;
}
