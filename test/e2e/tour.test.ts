// The README's tour of the past as it stands: scripts/tour.sh from an empty directory, with a file system on the disk. The
// script checks each step itself; here it has to come to its end and to have shown what the README shows.
import { join } from "node:path";
import { expect, test } from "vitest";
import { freePort } from "../tools/free-port.ts";
import { inTemporaryDirectory, run } from "../tools/varve-command.ts";
import { repositoryDir } from "../tools/varve-process.ts";

/** Half a minute on an idle machine. */
const tourMs = 300_000;

test(
  "a deleted file comes back from the time before, and a lost machine from its bucket",
  async () => {
    await inTemporaryDirectory(async (directory) => {
      const port = String(await freePort());
      const script = join(repositoryDir, "scripts", "tour.sh");
      const { code, stdout, stderr } = await run(script, [directory], { VARVE_TOUR_PORT: port }, tourMs);
      expect(code, `${stdout}\n${stderr}`).toBe(0);
      for (const shown of [
        "disk0 has no letter any more",
        "Dear future, this is what I wrote.",
        "created copy: 64M",
        "disk0 is what it was at entry",
        "extents are in the bucket only now",
        "disk.raw.partial",
        "serve them: varve up",
        "every disk held what it should",
      ]) {
        expect(stdout).toContain(shown);
      }
    });
  },
  tourMs,
);
