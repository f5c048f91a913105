// What a linter can't hold: how files open, how long they are and what they are called; that no file names the machine
// it was written on; that no test is skipped; that docs, links, scripts, format pages, codecs and golden tests agree.
// Part of `npm run check`. It looks at every file git tracks or would track; each test lists all offenders at once.
import { execFileSync } from "node:child_process";
import { existsSync, readFileSync, statSync } from "node:fs";
import { hostname } from "node:os";
import { dirname, join, normalize } from "node:path";
import { fileURLToPath } from "node:url";
import { describe, expect, test } from "vitest";

const root = dirname(dirname(fileURLToPath(import.meta.url)));
const files = execFileSync(
  "git",
  ["-c", "safe.directory=*", "ls-files", "-z", "--cached", "--others", "--exclude-standard"],
  {
    cwd: root,
  },
)
  .toString("utf8")
  .split("\0")
  .filter((file) => file !== "" && existsSync(join(root, file)));
const texts = new Map<string, string>();
const read = (file: string): string => {
  const known = texts.get(file);
  if (known !== undefined) return known;
  const text = readFileSync(join(root, file), "utf8");
  texts.set(file, text);
  return text;
};
const isText = (file: string): boolean => !read(file).includes("\0");
const code = files.filter((file) => /^(shared|services|test|scripts)\/.*\.ts$/.test(file));
const product = code.filter((file) => /^(shared|services|scripts)\//.test(file));
const tests = code.filter((file) => file.endsWith(".test.ts"));
const pages = files.filter((file) => file.endsWith(".md"));

/** Every line of `among` that matches, as `file:line: text`. */
function lines(among: readonly string[], pattern: RegExp): string[] {
  return among.filter(isText).flatMap((file) =>
    read(file)
      .split("\n")
      .flatMap((line, index) => (pattern.test(line) ? [`${file}:${index + 1}: ${line.trim()}`] : [])),
  );
}

/** Lines of the comment that opens a file; 0 when it opens with anything else. */
function headerLines(text: string): number {
  const all = text.split("\n");
  const first = all[0] === undefined || !all[0].startsWith("#!") ? 0 : 1;
  if (all[first]?.startsWith("/*") === true) {
    const end = all.findIndex((line, index) => index >= first && line.includes("*/"));
    return all.slice(first, end + 1).filter((line) => !/^\s*\/?\*+\/?\s*$/.test(line)).length;
  }
  const end = all.findIndex((line, index) => index >= first && !line.startsWith("//"));
  return (end === -1 ? all.length : end) - first;
}

describe("code files", () => {
  test("have Effect only where its diagnostics look (tsconfig.effect.json)", () => {
    const elsewhere = code.filter((file) => !/^(shared|services)\//.test(file));
    expect(elsewhere.length).toBeGreaterThan(0);
    expect(lines(elsewhere, /\b(?:from|import)[ (]+["'](?:effect|@effect\/(?!vitest))/)).toEqual([]);
  });

  test("open with 1 to 8 lines that say what they own", () => {
    const bad = code.flatMap((file) => {
      const count = headerLines(read(file));
      return count >= 1 && count <= 8 ? [] : [`${file}: ${count} lines`];
    });
    expect(bad).toEqual([]);
  });

  test("stay within the soft limit of lines", () => {
    const bad = code.flatMap((file) => {
      const count = read(file).split("\n").length - 1;
      return count <= (product.includes(file) ? 400 : 500) ? [] : [`${file}: ${count} lines`];
    });
    expect(bad).toEqual([]);
  });

  test("are named in kebab-case after a noun, not after a drawer", () => {
    const drawer = /(^|[-/.])(utils?|helpers?|common|managers?|misc|stuff)([-/.]|$)/;
    const kebab = /^[a-z0-9]+(-[a-z0-9]+)*((\.deep)?\.test|\.(contract|bench|config))?\.ts$/;
    const bad = code.filter((file) => drawer.test(file) || !kebab.test(file.split("/").at(-1) ?? ""));
    expect(bad).toEqual([]);
  });

  test("hold no note of work left undone", () => {
    const notes = /\b(TOD[O]|FIXM[E]|XX[X]|HAC[K])\b/;
    expect(lines(files, notes)).toEqual([]);
  });
});

describe("every file", () => {
  test("names no machine, home folder, workplace or registry", () => {
    const parts = [
      "(^|[^a-z.])/wor[k]/",
      "/home/[a-z]",
      "/Users/[A-Za-z]",
      "/roo[t]/[a-z.]",
      "/tmp/bash[_]jobs",
      "\\.\\./shared/(DESIGN|CONVENTIONS|FACTS|NBD|tools)",
      "registry\\.npm[j]s",
      '"resolved["]: ?"http',
    ];
    // A host's name counts when it is a name, not a word that may stand in any text.
    if (/[-0-9]/.test(hostname())) parts.push(hostname().replaceAll(".", "\\."));
    expect(lines(files, new RegExp(parts.join("|")))).toEqual([]);
  });

  test("is small enough for git", () => {
    const bad = files.filter((file) => statSync(join(root, file)).size > 1_000_000);
    expect(bad).toEqual([]);
  });
});

describe("tests", () => {
  test("are never skipped, focused or left for later", () => {
    const skipped =
      /\b(test|it|describe|suite|context|ctx)\.(ski[p]|onl[y]|tod[o]|fail[s]|skipI[f]|runI[f])\b/;
    expect(lines(code, skipped)).toEqual([]);
  });

  test("can fail: each test file holds an expectation, itself or in a suite that it runs", () => {
    const bad = tests.filter(
      (file) => !/\bexpect(\.|\()|\bassert[.(A-Z]|[Cc]ontract\(|[Ss]uite\(/.test(read(file)),
    );
    expect(bad).toEqual([]);
  });
});

describe("docs", () => {
  test("link only to what exists", () => {
    const bad = pages.flatMap((page) =>
      [...read(page).matchAll(/\]\(([^)\s]+)\)/g)].flatMap(([, target = ""]) => {
        if (/^[a-z]+:/.test(target)) return [];
        const [path = "", anchor] = target.split("#", 2);
        const file = path === "" ? page : normalize(join(dirname(page), path));
        if (!existsSync(join(root, file))) return [`${page}: ${target}`];
        return anchor === undefined || anchors(file).has(anchor)
          ? []
          : [`${page}: ${target} (no such heading)`];
      }),
    );
    expect(bad).toEqual([]);
  });

  test("of errors have every tag that the code gives, and no other", () => {
    const page = read("docs/errors.md");
    const given = new Set<string>();
    for (const file of product.filter((one) => !one.startsWith("scripts/"))) {
      for (const [, tag = ""] of read(file).matchAll(
        /(?:(?:new VarveError|super)\(\s*|[a-z]Tag = |\btag: )"([A-Z]\w+)"/g,
      ))
        given.add(tag);
    }
    expect(given.size).toBeGreaterThan(200);
    expect([...given].filter((tag) => !page.includes(`\`${tag}\``))).toEqual([]);
    const everyOther = page.slice(page.indexOf("## Every other tag"));
    const rows = [...everyOther.matchAll(/^\| (`.*?`) \|/gm)].flatMap(([, cell = ""]) =>
      cell.split(", ").map((tag) => tag.replaceAll("`", "")),
    );
    expect(rows.filter((tag) => !given.has(tag))).toEqual([]);
  });

  test("name only files and folders that exist", () => {
    const bad = pages.flatMap((page) =>
      [...read(page).matchAll(/`((?:shared|services|test|docs|scripts|bin|infra|\.ci)\/[^`\s]*)`/g)].flatMap(
        ([, path = ""]) => {
          if (/[*<>{}$…]|NNN|\.\.\./.test(path)) return [];
          return existsSync(join(root, path.replace(/[#:].*$/, ""))) ? [] : [`${page}: ${path}`];
        },
      ),
    );
    expect(bad).toEqual([]);
  });

  test("name only npm scripts that package.json has", () => {
    const scripts = Object.keys(packageJson().scripts ?? {});
    const bad = pages.flatMap((page) =>
      [...read(page).matchAll(/\bnpm (?:run ([a-z][a-z0-9:-]*)|(start|test)\b)/g)].flatMap(
        ([, run, short]) => {
          const name = run ?? short ?? "";
          return scripts.includes(name) ? [] : [`${page}: npm run ${name}`];
        },
      ),
    );
    expect(bad).toEqual([]);
  });

  test("name only tests of the past that are there", () => {
    const page = "docs/specs/past-tests.md";
    const rows = read(page)
      .split("\n")
      .map((line) => ({
        names: [...line.matchAll(/"([^"]+)"/g)],
        files: [...line.matchAll(/`(test\/[^`]+\.ts)`/g)],
      }))
      .filter(({ names }) => names.length > 0);
    const bad = rows.flatMap(({ names, files: among }) =>
      names.flatMap(([, name = ""]) =>
        among.some(([, file = ""]) => read(file).includes(`"${name}"`)) ? [] : [`${page}: no test "${name}"`],
      ),
    );
    expect(rows.length).toBeGreaterThan(20);
    expect(bad).toEqual([]);
  });

  test("decisions say context, decision, rejected options and consequences", () => {
    const records = pages.filter((page) => /^docs\/adr\/\d{3}-[a-z0-9-]+\.md$/.test(page));
    const bad = records.flatMap((page) =>
      ["Context", "Decision", "Rejected options", "Consequences"].flatMap((heading) =>
        new RegExp(`^## ${heading}`, "m").test(read(page)) ? [] : [`${page}: no "## ${heading}"`],
      ),
    );
    const numbers = records.map((page) => page.slice("docs/adr/".length, "docs/adr/NNN".length));
    expect(bad).toEqual([]);
    expect(numbers.length).toBeGreaterThan(0);
    expect(new Set(numbers).size).toBe(numbers.length);
  });
});

describe("formats", () => {
  const formatPages = pages.filter(
    (page) => /^docs\/formats\/[^/]+\.md$/.test(page) && !page.endsWith("README.md"),
  );
  const codecs = code.filter((file) => /^shared\/formats\/[^/]+\.ts$/.test(file));

  test("each page names its codec and its golden test", () => {
    const bad = formatPages.flatMap((page) => {
      const named = (pattern: RegExp): boolean =>
        [...read(page).matchAll(pattern)].some(([path]) => existsSync(join(root, path)));
      return [
        ...(named(/shared\/formats\/[a-z0-9-]+\.ts/g) ? [] : [`${page}: no codec`]),
        ...(named(/test\/golden\/[a-z0-9-]+\.test\.ts/g) ? [] : [`${page}: no golden test`]),
      ];
    });
    expect(bad).toEqual([]);
  });

  test("each codec is specified by a page", () => {
    const specified = formatPages.map(read).join("\n");
    expect(codecs.filter((file) => !specified.includes(file))).toEqual([]);
  });
});

describe("package.json", () => {
  test("pins every dependency exactly, and the lock file holds no download address", () => {
    const { dependencies = {}, devDependencies = {} } = packageJson();
    const loose = Object.entries({ ...dependencies, ...devDependencies }).filter(
      ([, version]) => !/^\d+\.\d+\.\d+$/.test(version),
    );
    expect(loose).toEqual([]);
    expect(read("package-lock.json")).not.toContain('"resolved"');
  });

  test("has a program behind every script", () => {
    const bad = Object.entries(packageJson().scripts ?? {}).filter(([, command]) =>
      [...command.matchAll(/(?:bin|scripts|test)\/[a-z0-9/-]+(?:\.ts)?/g)].some(
        ([path]) => !existsSync(join(root, path)),
      ),
    );
    expect(bad).toEqual([]);
  });
});

type PackageJson = Partial<Record<"scripts" | "dependencies" | "devDependencies", Record<string, string>>>;

function packageJson(): PackageJson {
  return JSON.parse(read("package.json")) as PackageJson;
}

/** The anchors of a page's headings, as the usual renderers build them. */
function anchors(file: string): Set<string> {
  if (!file.endsWith(".md")) return new Set();
  return new Set(
    [...read(file).matchAll(/^#+ +(.+)$/gm)].map(([, title = ""]) =>
      title
        .toLowerCase()
        .replace(/[^\p{L}\p{N}\s_-]/gu, "")
        .trim()
        .replace(/\s/g, "-"),
    ),
  );
}
