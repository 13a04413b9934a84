import type { Command } from './cli/command.ts'
import { catchStopSignals, endAtStopSignals } from './cli/process.ts'
import { version } from './version.ts'

/** Commands that run until they are told to stop. */
const UNTIL_STOPPED: ReadonlySet<string> = new Set(['serve', 'demo', 'dev'])

/** Commands are loaded when they are named, so that the proxy does not carry the demo's identity provider. */
const COMMANDS: Readonly<Record<string, () => Promise<Command>>> = {
  serve: async () => (await import('./cli/serve.ts')).serveCommand,
  check: async () => (await import('./cli/config/check.ts')).checkCommand,
  explain: async () => (await import('./cli/config/explain.ts')).explainCommand,
  doctor: async () => (await import('./cli/doctor/doctor.ts')).doctorCommand,
  demo: async () => (await import('./cli/demo.ts')).demoCommand,
  types: async () => (await import('./cli/config/types.ts')).typesCommand,
  dev: async () => (await import('./cli/dev/dev.ts')).devCommand,
  keygen: async () => (await import('./cli/keygen.ts')).keygenCommand,
  sessions: async () => (await import('./cli/sessions.ts')).sessionsCommand,
  schema: async () => (await import('./cli/schema.ts')).schemaCommand,
}

const USAGE = `usage: cloakroom [command] [options]

  serve [--config FILE]    run the proxy (default; FILE: $CLOAKROOM_CONFIG or config/cloakroom.yaml)
  check [--config FILE|-]  validate a config file and run its tests, without network
  explain METHOD URL       what becomes of a request: route, upstream URL, token request, CSRF rule
  doctor                   try what the configuration names: provider, client, Redis, upstreams, certificates
  demo [--port 8080]       everything on one machine: identity provider, two APIs, a single-page app
  dev [--app URL]          a development server around your own application and APIs
  sessions --user SUB      list the sessions of a user, or with --end end them
  types [--config FILE|-]  print TypeScript declarations of route ids, resources and claims
  keygen                   print a new session key
  schema                   print the JSON Schema of the config file

  --version                print the version
`

async function main(argv: string[]): Promise<number> {
  const [first = 'serve', ...rest] = argv
  if (first === 'help' || first === '--help' || first === '-h') {
    process.stdout.write(USAGE)
    return 0
  }
  if (first === 'version' || first === '--version' || first === '-V') {
    process.stdout.write(`${version()}\n`)
    return 0
  }
  const [name, args] = first.startsWith('-') ? ['serve', argv] : [first, rest]
  const load = Object.hasOwn(COMMANDS, name) ? COMMANDS[name] : undefined
  if (!load) {
    process.stderr.write(`cloakroom: no command "${name}"\n\n${USAGE}`)
    return 1
  }
  // Listens before anything more is loaded: to the first process of a container a signal without a listener is lost.
  const stop = UNTIL_STOPPED.has(name) ? catchStopSignals() : undefined
  if (!stop) endAtStopSignals()
  const command = await load()
  return command(args, {
    stdout: process.stdout,
    stderr: process.stderr,
    env: process.env,
    ...(stop && { stop }),
  })
}

const argv = process.argv.slice(2)
process.exitCode = await main(argv).catch((error: unknown) => {
  process.stderr.write(`cloakroom: ${error instanceof Error ? error.message : 'unknown error'}\n`)
  return 1
})
// The server's end leaves nothing open. A check that gave up waiting may still hold a socket.
if (argv[0] === 'doctor') process.exit()
