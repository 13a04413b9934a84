/** What a command may use of the process, so that tests can run it within theirs. */
export type CommandIo = {
  readonly stdout: { write(text: string): unknown }
  readonly stderr: { write(text: string): unknown }
  readonly env: Readonly<Record<string, string | undefined>>
}

/** One command of the command line: takes its arguments, resolves with the exit code. */
export type Command = (args: string[], io: CommandIo) => Promise<number>
