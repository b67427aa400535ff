// Writes wsd.global.js, the one file for a script tag, from wsd.js. `--check` writes nothing and
// fails where the file is not what it should be.
import { readFileSync, writeFileSync } from "node:fs";

const here = new URL(".", import.meta.url);
const source = readFileSync(new URL("wsd.js", here), "utf8");
const names = [...source.matchAll(/^export (?:class|function) (\w+)/gm)].map(([, name]) => name);
const script = `// Made from wsd.js by build.js.
"use strict";
var Wsd = (() => {
${source.replace(/^export /gm, "")}
return { ${names.join(", ")} };
})();
`;
const file = new URL("wsd.global.js", here);
if (!process.argv.includes("--check")) {
  writeFileSync(file, script);
} else if (readFileSync(file, "utf8") !== script) {
  console.error("clients/js/wsd.global.js is not made from wsd.js: node clients/js/build.js");
  process.exit(1);
}
