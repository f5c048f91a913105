// A machine that boots from one disk, and somebody at its serial console: waits for text and types lines.
// Caller: boot.test.ts. qemu runs emulated (TCG) with nothing but a virtio disk and a serial port: no -kernel, no
// -initrd, so BIOS, GRUB and kernel are all read from the disk.
import { type ChildProcess, spawn } from "node:child_process";

const alive = new Set<ChildProcess>();
process.on("exit", () => {
  for (const child of alive) child.kill("SIGKILL");
});

/** The machine ended or was silent before it showed what was waited for. */
export class ConsoleError extends Error {
  readonly _tag = "ConsoleError";
  constructor(what: string, shown: string) {
    super(`${what}\n--- console ---\n${shown.slice(-4000)}`);
  }
}

export class SerialConsole {
  /** Everything that the machine has shown, without carriage returns. */
  shown = "";
  readonly exited: Promise<number>;
  readonly #child: ChildProcess;
  #seenTo = 0;
  #changed = (): void => {};
  #ended = false;

  /** `drive` is what qemu's -drive takes: `file=PATH-or-URI,format=raw`. */
  constructor(drive: string) {
    const args = ["-accel", "tcg", "-cpu", "max,la57=off", "-m", "256", "-nodefaults", "-no-user-config"];
    args.push("-display", "none", "-no-reboot", "-serial", "stdio", "-drive", `${drive},if=virtio`);
    const child = spawn("qemu-system-x86_64", args, { stdio: ["pipe", "pipe", "pipe"] });
    this.#child = child;
    alive.add(child);
    for (const stream of [child.stdout, child.stderr]) {
      stream.setEncoding("utf8").on("data", (text: string) => {
        this.shown += text.replaceAll("\r", "");
        this.#changed();
      });
    }
    this.exited = new Promise((resolve) => {
      const end = (code: number): void => {
        alive.delete(child);
        this.#ended = true;
        this.#changed();
        resolve(code);
      };
      child.once("error", (cause) => {
        this.shown += cause.message;
        end(127);
      });
      child.once("close", (code) => end(code ?? 137));
    });
  }

  /** Waits for text that was not waited for before; returns all that was shown up to its end. */
  async expect(pattern: RegExp, timeoutMs: number): Promise<string> {
    let timer: NodeJS.Timeout | undefined;
    try {
      return await new Promise<string>((resolve, reject) => {
        this.#changed = () => {
          const fresh = this.shown.slice(this.#seenTo);
          const found = pattern.exec(fresh);
          if (found) {
            const end = found.index + found[0].length;
            this.#seenTo += end;
            resolve(fresh.slice(0, end));
          } else if (this.#ended) reject(new ConsoleError(`the machine ended before ${pattern}`, this.shown));
        };
        timer = setTimeout(
          () => reject(new ConsoleError(`no ${pattern} within ${timeoutMs} ms`, this.shown)),
          timeoutMs,
        );
        this.#changed();
      });
    } finally {
      clearTimeout(timer);
      this.#changed = () => {};
    }
  }

  type(line: string): void {
    this.#child.stdin?.write(`${line}\n`);
  }

  /** Types a shell command and returns what it printed; rejects when its status is not 0. */
  async run(command: string): Promise<string> {
    // The marks are made by the shell, so that the echo of the typed line is not taken for the answer.
    this.type(`printf '<%s>\\n' output; ${command}; echo "<status $?>"`);
    await this.expect(/^<output>$/m, 60_000);
    const lines = (await this.expect(/^<status \d+>$/m, 60_000)).split("\n");
    if (lines.at(-1) !== "<status 0>") throw new ConsoleError(`'${command}' failed`, this.shown);
    return lines.slice(0, -1).join("\n").trim();
  }

  async login(): Promise<void> {
    await this.expect(/varve-guest login: /, 120_000);
    this.type("root");
    await this.expect(/# /, 30_000);
  }

  /** A clean shutdown from inside. */
  async powerOff(): Promise<void> {
    this.type("poweroff");
    const code = await this.exited;
    if (code !== 0) throw new ConsoleError(`qemu ended with ${code}`, this.shown);
  }

  kill(): void {
    if (!this.#ended) this.#child.kill("SIGKILL");
  }
}
