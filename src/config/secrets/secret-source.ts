import { resolve } from 'node:path'
import type { SecretCheck } from '../rules/secret-rules.ts'
import { Secret } from './secret.ts'

/** How the operator writes a secret. */
export type SecretSource = string | { readonly env: string } | { readonly file: string }

/** What a secret is read from. */
export type SecretSurroundings = {
  readonly env: Readonly<Record<string, string | undefined>>
  /** Relative secret files start here. */
  readonly folder: string
  readonly readFile: ReadTextFile
  /** A file or variable that is not there gives an absent secret, and is no problem. */
  readonly mayBeAbsent?: boolean | undefined
}

/**
 * Gives a file's text. One that is not watched may change without a reload, because it is read at each use.
 * @throws the system's error.
 */
export type ReadTextFile = (path: string, isWatched?: boolean) => string

/** Opens secrets, and remembers which of them stood in the config file itself. */
export type SecretReader = {
  /** The secret, or what keeps it from being read or used; never with the value in it. */
  open(source: SecretSource, check: SecretCheck): Secret | { readonly problem: string }
  isInline(secret: unknown): boolean
  /** The absolute path of a client assertion's file, or of that which the platform names; or why it cannot be used now. */
  assertionFile(written: string | undefined): string | { readonly problem: string }
}

/** Set in a pod by Entra workload identity. */
const ASSERTION_VARIABLE = 'AZURE_FEDERATED_TOKEN_FILE'

/** Reads secrets from the environment, from files and from the config file's own text. */
export function createSecretReader({
  env,
  folder,
  readFile,
  mayBeAbsent = false,
}: SecretSurroundings): SecretReader {
  const inline = new WeakSet<Secret>()
  return {
    open(source, check) {
      if (typeof source === 'string') {
        if (source.trim() === '')
          return { problem: 'must not be empty; write { env: NAME } or { file: PATH }' }
        const secret = checked(source, check)
        if (secret instanceof Secret) inline.add(secret)
        return secret
      }
      if (mayBeAbsent && !isThere(source, { env, folder, readFile })) return new Secret('')
      return 'env' in source
        ? fromEnvironment(env, source.env, check)
        : fromFile(resolve(folder, source.file), readFile, check)
    },
    isInline: (secret) => secret instanceof Secret && inline.has(secret),
    assertionFile(written) {
      const name = written ?? env[ASSERTION_VARIABLE] ?? ''
      if (mayBeAbsent) return resolve(folder, name)
      if (name.trim() === '') {
        return {
          problem: `must be the path of a file, because environment variable ${ASSERTION_VARIABLE} is not set; is the pod labelled azure.workload.identity/use: "true"?`,
        }
      }
      const path = resolve(folder, name)
      try {
        return readFile(path, false).trim() === '' ? { problem: `the file ${path} is empty` } : path
      } catch (error) {
        return { problem: `cannot read the file ${path} (${reasonOf(error)})` }
      }
    },
  }
}

function isThere(
  source: Exclude<SecretSource, string>,
  { env, folder, readFile }: SecretSurroundings,
): boolean {
  if ('env' in source) return (env[source.env] ?? '') !== ''
  try {
    readFile(resolve(folder, source.file))
    return true
  } catch {
    return false
  }
}

function fromEnvironment(
  env: SecretSurroundings['env'],
  name: string,
  check: SecretCheck,
): Secret | { problem: string } {
  const value = withoutFinalNewline(env[name] ?? '')
  if (value.trim() !== '') return checked(value, check)
  const state = env[name] === undefined ? 'is not set' : 'is empty'
  return { problem: `environment variable ${name} ${state}` }
}

/**
 * Reads the file at once, and again at every use, so that a rotated secret is picked up without a restart.
 * While the file is missing, empty (a mount being swapped) or holds what the check refuses, the last good value stays.
 */
function fromFile(path: string, readFile: ReadTextFile, check: SecretCheck): Secret | { problem: string } {
  let lastRead: string
  try {
    lastRead = withoutFinalNewline(readFile(path))
  } catch (error) {
    return { problem: `cannot read the file ${path} (${reasonOf(error)})` }
  }
  if (lastRead.trim() === '') return { problem: `the file ${path} is empty` }
  const first = checked(lastRead, check)
  if (!(first instanceof Secret)) return first
  let lastGood = lastRead
  return new Secret(() => {
    try {
      const text = withoutFinalNewline(readFile(path))
      // Checked once for each content, because checking a private key is expensive.
      if (text !== lastRead && text.trim() !== '' && check(text) === undefined) lastGood = text
      lastRead = text
    } catch {
      // Missing for now: the last good value is used on.
    }
    return lastGood
  })
}

function checked(value: string, check: SecretCheck): Secret | { problem: string } {
  const problem = check(value)
  return problem === undefined ? new Secret(value) : { problem }
}

function withoutFinalNewline(text: string): string {
  return text.replace(/(?:\r?\n)+$/, '')
}

/** The reason of a file system error, in words for an operator, without the path. */
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
