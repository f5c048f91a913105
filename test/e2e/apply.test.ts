// `varve apply` against a real `varve up`: volumes and schedules from a file, a second run that changes nothing, growing, pruning with the
// guards of volume delete, and mistakes that change nothing. Clusters: test/cluster/apply.test.ts.
import { writeFileSync } from "node:fs";
import { join } from "node:path";
import { expect, test } from "vitest";
import type { ApiVolume } from "#shared/api/http-api.ts";
import type { ApiSnapshot } from "#shared/api/past-api.ts";
import { freePort } from "../tools/free-port.ts";
import { NbdClient } from "../tools/nbd-client.ts";
import { inTemporaryDirectory, varve, varveJson } from "../tools/varve-command.ts";
import { VarveProcess } from "../tools/varve-process.ts";

const lab = `volumes:
  disk0:
    size: 64M
    history: 2d
    snapshots:
      minutely: { every: 1m, keep: 2 }
  scratch: { size: 32M, durability: flush }
`;

test("one machine becomes what the file says, and nothing else", async () => {
  await inTemporaryDirectory(async (directory) => {
    const nbd = `unix:${join(directory, "nbd.sock")}`;
    const http = `127.0.0.1:${await freePort()}`;
    const api = ["--api", `http://${http}`];
    const file = join(directory, "lab.yaml");
    const apply = async (text: string, ...flags: readonly string[]) => {
      writeFileSync(file, text);
      return await varve(["apply", "-f", file, ...flags, ...api]);
    };
    const volumes = async (): Promise<readonly ApiVolume[]> => varveJson(["volume", "list", ...api]);
    const options = { dataDir: join(directory, "data"), nbd: [nbd], http };
    let server = await VarveProcess.start({ ...options, volumes: ["byhand:32M"] });
    try {
      // Mistakes of the file, all at once; then those against what is there. Nothing happens.
      expect(await apply("volumes:\n  a: { sice: 1M }\nnode: {}\n")).toMatchObject({
        code: 2,
        stdout: "",
        stderr: `varve: ${file}:2: volumes.a.sice: is not known; did you mean size?
varve: ${file}:2: volumes.a: has no size: write size: 10G
varve: ${file}:3: node: is not known; did you mean nodes?
hint: What may stand there is in docs/specs/apply.md. Nothing was changed.
`,
      });
      const misfit = `nodes: { shelf: {} }\nvolumes:\n  new: { size: 1M, replicas: 2 }\n  byhand: { size: 1M }\n`;
      const refused = await apply(misfit);
      expect(refused.code).toBe(2);
      expect(refused.stderr.match(/lab\.yaml:\d+/g)).toEqual(["lab.yaml:1", "lab.yaml:3", "lab.yaml:4"]);
      expect((await varve(["apply", "-f", join(directory, "none.yaml"), ...api])).code).toBe(2);
      expect((await apply(lab, "--dry-run")).stdout).toBe(
        "volume disk0: create, 64M\nvolume scratch: create, 32M\n",
      );
      expect((await volumes()).map(({ name }) => name)).toEqual(["byhand"]);

      expect(await apply(lab)).toMatchObject({ code: 0, stderr: "" });
      expect(await volumes()).toMatchObject([
        { name: "byhand", orders: { lab: null } },
        {
          name: "disk0",
          orders: { lab: "lab", schedules: [{ name: "minutely", every: "1m", keep: 2 }] },
          past: { history: "2d" },
        },
        { name: "scratch", durability: "flush" },
      ]);
      expect(await apply(lab)).toMatchObject({ code: 0, stdout: "nothing to do\n" });

      // What was ordered outlives the process, and is carried out.
      await server.stop();
      server = await VarveProcess.start(options);
      const client = await NbdClient.connect(nbd, "disk0");
      await client.write(0, Buffer.alloc(4096, 1));
      const taken = async (): Promise<readonly ApiSnapshot[]> =>
        varveJson(["snapshot", "list", "disk0", ...api]);
      await expect.poll(taken, { timeout: 30_000, interval: 500 }).toHaveLength(1);
      expect((await taken())[0]?.name).toMatch(/^minutely\.\d{8}-\d{4}00$/);

      // Less in the file: told, and deleted only when asked for, with the guards of volume delete.
      const less = "volumes:\n  scratch: { size: 48M }\n  byhand: { size: 32M, history: 3d }\n";
      const told = await apply(less);
      expect(told).toMatchObject({ code: 0 });
      expect(told.stdout).toBe(
        "volume scratch: resize from 32M to 48M: done\nvolume byhand: set history 3d: done\n",
      );
      expect(told.stderr).toContain("disk0 was made by lab lab and is not in the file: --prune deletes it");
      expect(await apply(less, "--prune")).toMatchObject({
        code: 2,
        stderr: expect.stringContaining("volume disk0: delete with all its data: volume disk0"),
      });
      await client.disconnect();
      expect(await apply("lab: other\n", "--prune")).toMatchObject({ code: 0, stdout: "nothing to do\n" });
      const pruned = await apply("volumes: {}\n", "--prune", "--json");
      expect(JSON.parse(pruned.stdout)).toMatchObject({ done: 2, notes: [] });
      expect((await volumes()).map(({ name }) => name)).toEqual(["byhand"]);
    } finally {
      await server.stop();
    }
  });
}, 120_000);
