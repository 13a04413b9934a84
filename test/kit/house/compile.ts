import { execFile } from 'node:child_process'
import { mkdirSync, mkdtempSync, rmSync, writeFileSync } from 'node:fs'
import { join } from 'node:path'
import { ROOT } from './source-files.ts'

const OPTIONS = {
  ...{ strict: true, noUncheckedIndexedAccess: true, noEmit: true, skipLibCheck: false, types: [] },
  ...{ module: 'nodenext', target: 'es2024', lib: ['es2024', 'dom', 'dom.iterable'] },
  allowImportingTsExtensions: true,
}

/**
 * Type-checks files as an application would have them, two folders below node_modules/.cache; returns what the compiler says,
 * nothing when all is well.
 */
export async function compile(
  files: Readonly<Record<string, string>>,
  options: object = {},
): Promise<string> {
  const cache = join(ROOT, 'node_modules/.cache')
  mkdirSync(cache, { recursive: true })
  const folder = mkdtempSync(join(cache, 'compile-'))
  try {
    const tsconfig = { compilerOptions: { ...OPTIONS, ...options }, include: ['.'] }
    const all = { ...files, 'package.json': '{"type":"module"}', 'tsconfig.json': JSON.stringify(tsconfig) }
    for (const [name, text] of Object.entries(all)) writeFileSync(join(folder, name), text)
    const { promise, resolve } = Promise.withResolvers<string>()
    const args = [join(ROOT, 'node_modules/typescript/bin/tsc'), '-p', folder]
    execFile(process.execPath, args, { cwd: ROOT }, (error, stdout) =>
      resolve(error ? stdout || error.message : ''),
    )
    return await promise
  } finally {
    rmSync(folder, { recursive: true })
  }
}
