import { readFileSync } from 'node:fs'
import type { StopSignals } from './process.ts'

/** What a command may use of the process, so that tests can run it within theirs. */
export type CommandIo = {
  readonly stdout: { write(text: string): unknown }
  readonly stderr: { write(text: string): unknown }
  readonly env: Readonly<Record<string, string | undefined>>
  /** All of standard input; absent: that of the process. */
  readonly readStdin?: () => string
  /** The signals that ask the process to stop, when they are caught already. */
  readonly stop?: StopSignals
}

/** All of standard input, decoded as UTF-8. @throws the system's error. */
export function readStdin(io: Pick<CommandIo, 'readStdin'>): string {
  return io.readStdin ? io.readStdin() : readFileSync(0, 'utf8')
}

/** One command of the command line: takes its arguments, resolves with the exit code. */
export type Command = (args: string[], io: CommandIo) => Promise<number>

/** Says what is wrong with a command's arguments and how it is used; returns exit code 1. */
export function usageError({ error, usage }: { error: unknown; usage: string }, io: CommandIo): number {
  const command = /cloakroom \S+/.exec(usage)?.[0] ?? 'cloakroom'
  const reason = error instanceof Error ? error.message.split('. ')[0] : 'wrong arguments'
  io.stderr.write(`${command}: ${reason}\n\n${usage}`)
  return 1
}
