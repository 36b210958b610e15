// Keys of the original: `node keypair_originals.js FOLDER BITS POOL [EXPONENT]` prints "bits,exponent,pool,p,q" (hex).
//
// FOLDER is an unpacked, unchanged keypair 1.0.3 (npm). The package fills its 32-byte pool from two sources: the clock
// when it is loaded (one byte) and Math.random (31 bytes). Both are replaced here by ones that lead to POOL (64 hex
// digits); everything after the sources is the package's own doing. POOL "-" leaves the sources alone: a key as
// anybody made it, with an unknown pool.
//
// One key a process, as the package makes its pool once.

'use strict';

const path = require('path');

const [folder, bits, pool, exponent] = process.argv.slice(2);

// Masks that the package lays over what Math.random says: a generator modulo 2^31 - 1 (with the package's own slip in
// the carry), three bytes a step.
function masks(first) {
  const found = [];
  let state = first;
  while (found.length < 31 * 32) {
    const low = 16807 * (state & 0xffff);
    const high = 16807 * (state >> 16);
    const sum = low + ((high & 0x7fff) << 16) + (high >> 15);
    state = (sum & 0x7fffffff) + (sum >> 31);
    found.push(state & 0xff, (state >>> 8) & 0xff, (state >>> 16) & 0xff);
  }
  return found;
}

// Bytes go round 32 places. The clock's four, and whatever `navigator` adds, come before Math.random's.
function places(start) {
  return Array.from({ length: 31 * 32 }, (_, k) => (k + start) % 32);
}

// Answers of Math.random, as numbers 0 to 254, that leave the wanted bytes in place 0.
function answers(wanted, start) {
  const harmless = [0x00, 0x20, 0x30, 0x41, 0x80, 0xa0, 0xfe, 0x09]; // none of them is a digit other than 0
  for (let first = 1; first < 0xffff; first += 97) {
    const mask = masks(first);
    let index = 1;
    const found = places(start).map((place, k) => {
      if (place !== 0) return k % 255;
      const digit = wanted[index++];
      const character = digit ? 0x30 + digit : harmless.find((one, j) => j >= index % 4 && (one ^ mask[k]) !== 0xff);
      return character ^ mask[k];
    });
    if (!found.includes(0xff)) return [first, ...found];
  }
  throw new Error('no state of the generator makes this pool');
}

function steer(wanted) {
  const RealDate = Date;
  const realRandom = Math.random;
  let navigatorBytes = 0;
  if (typeof navigator !== 'undefined') {
    for (const name in navigator) if (typeof navigator[name] === 'string') navigatorBytes += navigator[name].length;
  }
  if (navigatorBytes > 28) throw new Error('navigator says so much that it reaches place 0');
  const prepared = answers(wanted, (4 + navigatorBytes) % 32);
  let loading = true;
  global.Date = function () {
    const now = new RealDate();
    if (loading) now.valueOf = () => 0x18000000000 + wanted[0]; // what the plus of "+new Date()" asks
    return now;
  };
  let asked = 0;
  Math.random = () => {
    if (asked === prepared.length) return realRandom();
    const range = asked === 0 ? 0xffff : 0xff;
    return (prepared[asked++] + 0.5) / range;
  };
  return () => { loading = false; };
}

const loaded = pool === '-' ? () => {} : steer(Buffer.from(pool, 'hex'));
const keypair = require(path.resolve(folder));
loaded();
const options = { bits: Number(bits) };
if (exponent) options.e = Number(exponent);
const made = require('crypto').createPrivateKey(keypair(options).private).export({ format: 'jwk' });
const hex = (text) => Buffer.from(text, 'base64url').toString('hex');
console.log([bits, options.e || 65537, pool, hex(made.p), hex(made.q)].join(','));
