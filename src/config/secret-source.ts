import { resolve } from 'node:path'
import { Secret } from './secret.ts'

/** How the operator writes a secret. */
export type SecretSource = string | { readonly env: string } | { readonly file: string }

/** What a secret is read from. */
export type SecretSurroundings = {
  readonly env: Readonly<Record<string, string | undefined>>
  /** Relative secret files start here. */
  readonly folder: string
  readonly readFile: (path: string) => string
}

/** Opens secrets, and remembers which of them stood in the config file itself. */
export type SecretReader = {
  /** The secret, or what keeps it from being read; never with the value in it. */
  open(source: SecretSource): Secret | { readonly problem: string }
  isInline(secret: unknown): boolean
}

/** Reads secrets from the environment, from files and from the config file's own text. */
export function createSecretReader({ env, folder, readFile }: SecretSurroundings): SecretReader {
  const inline = new WeakSet<Secret>()
  return {
    open(source) {
      if (typeof source === 'string') {
        if (source.trim() === '')
          return { problem: 'must not be empty; write { env: NAME } or { file: PATH }' }
        const secret = new Secret(source)
        inline.add(secret)
        return secret
      }
      return 'env' in source
        ? fromEnvironment(env, source.env)
        : fromFile(resolve(folder, source.file), readFile)
    },
    isInline: (secret) => secret instanceof Secret && inline.has(secret),
  }
}

function fromEnvironment(env: SecretSurroundings['env'], name: string): Secret | { problem: string } {
  const value = withoutFinalNewline(env[name] ?? '')
  if (value !== '') return new Secret(value)
  const state = env[name] === undefined ? 'is not set' : 'is empty'
  return { problem: `environment variable ${name} ${state}` }
}

/**
 * Reads the file at once, and again at every use, so that a rotated secret is picked up without a restart.
 * While the file is missing or empty (a mount being swapped), the last good value stays.
 */
function fromFile(path: string, readFile: (path: string) => string): Secret | { problem: string } {
  let lastGood: string
  try {
    lastGood = withoutFinalNewline(readFile(path))
  } catch (error) {
    return { problem: `cannot read the file ${path} (${reasonOf(error)})` }
  }
  if (lastGood === '') return { problem: `the file ${path} is empty` }
  return new Secret(() => {
    try {
      lastGood = withoutFinalNewline(readFile(path)) || lastGood
    } catch {
      // Missing for now: what was read last still opens what it opened before.
    }
    return lastGood
  })
}

function withoutFinalNewline(text: string): string {
  return text.replace(/(?:\r?\n)+$/, '')
}

/** What an operator can act on of a file system error; its message would repeat the path. */
export function reasonOf(error: unknown): string {
  const code = (error as NodeJS.ErrnoException | undefined)?.code ?? 'unreadable'
  const words: Readonly<Record<string, string>> = {
    ENOENT: 'there is no such file',
    EACCES: 'permission denied',
    EISDIR: 'it is a folder',
    ENOTDIR: 'a part of the path is not a folder',
  }
  return Object.hasOwn(words, code) ? words[code]! : code
}
