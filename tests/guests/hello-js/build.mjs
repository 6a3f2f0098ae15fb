// Builds worker.js into a component: node build.mjs [out-file]
import { cp, mkdir, mkdtemp, readdir, readFile, rm, writeFile } from "node:fs/promises";
import { tmpdir } from "node:os";
import { dirname, join } from "node:path";
import { fileURLToPath } from "node:url";
import { componentize } from "@bytecodealliance/componentize-js";

// The engine inside componentize-js speaks this version; a world that names another one is refused.
const ENGINE_WASI = "0.2.10";
const SHIPPED_WASI = "0.2.12";

const here = dirname(fileURLToPath(import.meta.url));
const out = process.argv[2] ?? join(here, "hello-js.wasm");

// The WASI definitions come with jco, which componentize-js brings along. These two versions differ in the number only.
const jco = join(here, "node_modules", "@bytecodealliance", "jco");
const shipped = join(jco, "lib", "wit", "builtin", SHIPPED_WASI);

const wit = await mkdtemp(join(tmpdir(), "hello-js-"));
try {
  await mkdir(join(wit, "deps"));
  for (const folder of await readdir(shipped)) {
    await cp(join(shipped, folder), join(wit, "deps", folder), { recursive: true });
    const file = join(wit, "deps", folder, "package.wit");
    const text = await readFile(file, "utf8");
    await writeFile(file, text.replaceAll(SHIPPED_WASI, ENGINE_WASI));
  }
  await writeFile(
    join(wit, "world.wit"),
    `package wharfage:guests;\nworld worker { export wasi:http/incoming-handler@${ENGINE_WASI}; }\n`,
  );
  const { component } = await componentize({
    sourcePath: join(here, "worker.js"),
    witPath: wit,
    worldName: "worker",
    // Without fetch() the worker needs no feature of its host.
    disableFeatures: ["http"],
  });
  await writeFile(out, component);
} finally {
  await rm(wit, { recursive: true, force: true });
}
