// Which slot of an experiment a unit is in, without feedrank: what a client in another language does.
// Reads {"cases": [{"salt", "unit"}]} from stdin, and prints {"slots": [...]}.
"use strict";

function hash32(text, seed) {
  const data = Buffer.from(text, "utf8");
  const mix = (word) => {
    word = Math.imul(word, 0xcc9e2d51);
    word = (word << 15) | (word >>> 17);
    return Math.imul(word, 0x1b873593);
  };
  let hash = seed;
  const whole = data.length & ~3;
  for (let at = 0; at < whole; at += 4) {
    hash ^= mix(data.readUInt32LE(at));
    hash = (hash << 13) | (hash >>> 19);
    hash = (Math.imul(hash, 5) + 0xe6546b64) | 0;
  }
  let rest = 0;
  for (let at = data.length - 1; at >= whole; at--) rest = (rest << 8) | data[at];
  if (whole < data.length) hash ^= mix(rest);
  hash ^= data.length;
  hash = Math.imul(hash ^ (hash >>> 16), 0x85ebca6b);
  hash = Math.imul(hash ^ (hash >>> 13), 0xc2b2ae35);
  return (hash ^ (hash >>> 16)) >>> 0;
}

const slot = (salt, unit) => Number((BigInt(hash32(`${salt}:${unit}`, 0)) * 1000000n) >> 32n);

const told = JSON.parse(require("fs").readFileSync(0, "utf8"));
process.stdout.write(JSON.stringify({ slots: told.cases.map((one) => slot(one.salt, one.unit)) }));
