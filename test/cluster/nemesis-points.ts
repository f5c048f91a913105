// The points of the nemesis' volumes that may be gone back to, and the clones that were made of them: these are deleted when no gateway serves
// them any more, while other rounds go on. Made by nemesis-run.ts, used by nemesis-steps.ts.
import { sleep } from "../tools/cluster-process.ts";
import { type ApiAnswer, errorIn, type NemesisApi } from "./nemesis-api.ts";
import type { KnownPoint, NemesisClient } from "./nemesis-client.ts";

const pointsMax = 4;
const takesMax = 60;
const goneMs = 120_000;

export class NemesisPoints {
  readonly #api: NemesisApi;
  readonly #known = new Map<string, KnownPoint[]>();
  readonly #clones = new Set<string>();
  #taken = 0;
  #cloned = 0;
  #deleted = 0;
  #left = 0;
  #back = { whole: 0, tiered: 0 };

  constructor(api: NemesisApi) {
    this.#api = api;
  }

  of(volume: string): readonly KnownPoint[] {
    return this.#known.get(volume) ?? [];
  }

  summary(): string {
    const { whole, tiered } = this.#back;
    const clones = `${this.#cloned} clones, of which ${this.#deleted} were deleted`;
    return `${this.#taken} snapshots, ${clones}; ${this.#left} extents left a node; ${whole + tiered} rollbacks, ${tiered} of a tiered volume`;
  }

  /** By the words of the job: `… shelf-1 3, shelf-2 0`. */
  noteLeft(note: string): void {
    for (const [, count] of note.matchAll(/shelf-\d (\d+)/g)) this.#left += Number(count);
  }

  noteBack(isTiered: boolean): void {
    this.#back[isTiered ? "tiered" : "whole"] += 1;
  }

  /** A snapshot under the load; the oldest of those that are known is deleted where there are too many. */
  async take(client: NemesisClient): Promise<KnownPoint> {
    const { name: volume } = client.volume;
    const point = await this.#snapshot(client);
    const known = [...this.of(volume), point];
    this.#known.set(volume, known);
    if (known.length > pointsMax) {
      const [oldest] = known.splice(0, 1);
      await this.#api.insist("DELETE", `volumes/${volume}/snapshots/${oldest?.name}`);
    }
    return point;
  }

  async clone(volume: string, point: string): Promise<string> {
    for (;;) {
      this.#cloned += 1;
      const name = `clone${this.#cloned}`;
      const answer = await this.#api.insist("POST", `volumes/${volume}/clones`, { name, point });
      const error = errorIn(answer);
      this.#clones.add(name);
      if (error === null) return name;
      // An api that was killed had begun it: it may be there, or not wholly.
      if (error.tag !== "VolumeExistsError")
        throw new Error(`${name} of ${volume}: ${error.tag}: ${error.message}`);
    }
  }

  /** Those that no gateway serves any more: half a minute after their last client. */
  async deleteClones(): Promise<void> {
    for (const name of this.#clones) {
      const answer = await this.#api.ask("DELETE", `volumes/${name}`).catch(() => null);
      if (answer !== null && isGone(answer)) this.#forget(name);
    }
  }

  /** All of them, and nothing is left of them in the catalogue. */
  async end(): Promise<readonly string[]> {
    const endMs = performance.now() + goneMs;
    const left = async (): Promise<readonly string[]> =>
      (await this.#api.volumes()).map(({ name }) => name).filter((name) => name.startsWith("clone"));
    while (this.#clones.size > 0 || (await left()).length > 0) {
      if (performance.now() > endMs) {
        return [
          `clones are not gone: ${[...this.#clones].join(", ")}; there are ${(await left()).join(", ")}`,
        ];
      }
      await this.deleteClones();
      await sleep(500);
    }
    return [];
  }

  #forget(name: string): void {
    this.#clones.delete(name);
    this.#deleted += 1;
  }

  async #snapshot(client: NemesisClient): Promise<KnownPoint> {
    for (let takes = 1; ; takes += 1) {
      this.#taken += 1;
      const name = `point${this.#taken}`;
      try {
        return await client.point(async () => {
          const answer = await this.#api.ask("POST", `volumes/${client.volume.name}/snapshots`, { name });
          const error = errorIn(answer);
          if (error !== null) throw new Error(`${error.tag}: ${error.message}`);
          return { name, lsn: (answer.body as { readonly lsn: number }).lsn };
        });
      } catch (cause) {
        if (takes === takesMax) throw cause;
        await sleep(300);
      }
    }
  }
}

function isGone(answer: ApiAnswer): boolean {
  const error = errorIn(answer);
  return error === null || error.tag === "UnknownVolumeError";
}
