// A second load beside the block checker's: fio on a volume of its own, which checks a checksum of every block that it wrote and ends at the first
// that is wrong. It can't connect again, so it takes only faults that its connection outlives. Made by nemesis-run.ts (--fio).
import { FioRun } from "../tools/fio.ts";
import { type GateName, type NemesisLab } from "./nemesis-lab.ts";

const hoursMs = 3 * 3_600_000;
const volume = "disk2";

export class NemesisFio {
  readonly #run: FioRun;

  private constructor(run: FioRun) {
    this.#run = run;
  }

  static async start(lab: NemesisLab, gate: GateName, sizeBytes: number): Promise<NemesisFio> {
    await lab.createVolume({ name: volume, sizeBytes, reads: "available" });
    const { host, port } = lab.gate(gate);
    const load = ["--rw=randwrite", "--bsrange=4k-64k", "--iodepth=8", `--size=${sizeBytes}`];
    const check = ["--verify=crc32c", "--verify_backlog=256", "--verify_fatal=1", "--loops=1000000"];
    const uri = `--uri=nbd://${host}:${port}/${volume}`;
    return new NemesisFio(new FioRun(["--name=beside", "--ioengine=nbd", uri, ...load, ...check], hoursMs));
  }

  /** What it found, while it runs on. */
  failures(): readonly string[] {
    return this.#run.ended ? [`fio ended: ${this.#run.output()}`] : [];
  }

  async stop(): Promise<void> {
    this.#run.kill();
    await this.#run.exited;
  }
}
