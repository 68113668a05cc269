// wasi.mjs PROGRAM [ARGUMENT...] - runs a program that was compiled to WebAssembly for WASI, in node: tests/cross.sh.

import { readFile } from 'node:fs/promises';
import { WASI } from 'node:wasi';

const [program, ...rest] = process.argv.slice(2);
const wasi = new WASI({ version: 'preview1', args: [program, ...rest], env: process.env, preopens: { '.': process.cwd() } });
const { instance } = await WebAssembly.instantiate(await readFile(program), wasi.getImportObject());
process.exitCode = wasi.start(instance);
