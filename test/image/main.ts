/**
 * `npm run image`: builds the image, and beside it its SBOM, VEX and provenance, and prints what is in it. The steps are
 * in `main`, in their order; what has logic has a file of its own, and tests.
 */
import { spawnSync } from 'node:child_process'
import { createHash } from 'node:crypto'
import { existsSync, globSync, mkdirSync, readFileSync, rmSync, statSync, writeFileSync } from 'node:fs'
import { join } from 'node:path'
import { fileURLToPath } from 'node:url'
import { parseArgs } from 'node:util'
import { type Attachment, digestOf, writeLayout } from './layout.ts'
import { packagesOf } from './notices.ts'
import { provenance } from './provenance.ts'
import { type Bom, imageSbom } from './sbom.ts'
import { startReport } from './start-time.ts'
import { type Audit, partsOf, type Statement, statementProblems, unassessed, vexDocument } from './vex.ts'

const USAGE = `usage: npm run image -- [--tag NAME] [--out DIR] [--source URL] [--start ROUNDS] [--twice]

  Builds the image with podman, and writes into DIR an OCI layout of it with its SBOM and VEX (CycloneDX) and its provenance
  (SLSA, in-toto), each also as a file; prints layers, packages and their sizes. The Dockerfile's bases are not fetched
  when they are there.

  --tag NAME      default: localhost/cloakroom:latest
  --out DIR       default: node_modules/.cache/image
  --source URL    where the sources are, for the label and the provenance; default: SOURCE_URL
  --start ROUNDS  also starts the image so many times, and says how long it takes until /readyz answers 200
  --twice         also builds it a second time without cached layers, and compares the digests
`

const ROOT = fileURLToPath(new URL('../..', import.meta.url))
const say = (text: string) => process.stdout.write(`${text}\n`)

/** What a command prints. @throws when it fails. */
function run(command: string, ...args: string[]): string {
  const { status, stdout, stderr, error } = spawnSync(command, args, {
    ...{ cwd: ROOT, encoding: 'utf8', maxBuffer: 1 << 28 },
  })
  if (status !== 0)
    throw new Error(
      `${command} ${args[0]} failed: ${error?.message ?? (stderr || stdout).trim().slice(-2000)}`,
    )
  return stdout.trim()
}

type Options = { tag: string; out: string; source: string; start?: string | undefined; twice: boolean }

async function main(options: Options): Promise<void> {
  const { tag, out } = options
  const startedOn = new Date().toISOString()
  const sources = {
    revision: run('git', 'rev-parse', 'HEAD'),
    isClean: run('git', 'status', '--porcelain') === '',
  }
  const epoch = Number(process.env.SOURCE_DATE_EPOCH ?? run('git', 'log', '-1', '--format=%ct'))
  const bases = basesOf(readFileSync(join(ROOT, 'Dockerfile'), 'utf8'))
  const args = {
    REVISION: sources.revision,
    VERSION: JSON.parse(readFileSync(join(ROOT, 'package.json'), 'utf8')).version,
    SOURCE: options.source,
    BASE_DIGEST: bases.at(-1)!.digest,
  }
  const build = (name: string, ...more: string[]) =>
    run(
      ...(['podman', 'build', '--pull=missing', '--network=host', '--format=docker'] as const),
      // The same time for every revision, so that a layer that did not change keeps its digest.
      ...['--timestamp', process.env.SOURCE_DATE_EPOCH ?? '0', ...more, '--tag', name],
      ...Object.entries(args).flatMap(([key, value]) => ['--build-arg', `${key}=${value}`]),
      '.',
    )
  build(tag)
  rmSync(out, { recursive: true, force: true })
  mkdirSync(out, { recursive: true })
  const saved = save(tag, join(out, 'saved'))
  const digest = digestOf(saved)
  const files = unpack(tag, join(out, 'root'))

  const built = { tag, digest, files, epoch, out, startedOn, source: { uri: options.source, ...sources } }
  const { attachments, sbom, statements } = writeDocuments(built, { args, bases })
  writeLayout(join(out, 'oci'), saved, { tag: args.VERSION, attachments })

  report(tag, { files, digest, saved })
  say(
    `SBOM: ${sbom.components.length} components. VEX: ${statements.length} statements. ${auditWords(statements, partsOf(sbom))}`,
  )
  say(schemaWords(attachments.slice(0, 2)))
  if (options.twice) {
    build(`${tag}-again`, '--no-cache')
    const again = digestOf(save(`${tag}-again`, join(out, 'again')))
    say(`a second build, nothing cached: ${again} (${again === digest ? 'the same' : 'ANOTHER'})`)
    if (again !== digest) process.exitCode = 1
  }
  if (options.start) say(await startReport(tag, Number(options.start)))
  for (const name of ['saved', 'again', 'root']) rmSync(join(out, name), { recursive: true, force: true })
  say(
    `\nin ${out}: oci/ (the image with what refers to it) and\n${attachments.map(({ name }) => `  ${name}`).join('\n')}`,
  )
}

type Built = {
  tag: string
  digest: string
  files: string
  epoch: number
  out: string
  startedOn: string
  source: { uri: string; revision: string; isClean: boolean }
}
type Inputs = { args: Record<string, string>; bases: { name: string; digest: string }[] }

/** Writes SBOM, VEX and provenance. @throws when a statement of helm/vex.json does not hold. */
function writeDocuments(built: Built, { args, bases }: Inputs) {
  const { tag, digest, files, epoch, out, startedOn, source } = built
  const statements: Statement[] = JSON.parse(readFileSync(join(ROOT, 'helm/vex.json'), 'utf8'))
  const sbom = imageSbom(npm('sbom', '--sbom-format', 'cyclonedx', '--package-lock-only') as Bom, {
    shipped: new Set(shipped(files).map(({ name, version }) => `${name}@${version}`)),
    node: JSON.parse(inImage(tag, '--print', 'JSON.stringify(process.versions)')),
    base: bases.at(-1)!.name,
    debian: globSync('var/lib/dpkg/status.d/*', { cwd: files })
      .filter((name) => !name.endsWith('.md5sums'))
      .map((name) => readFileSync(join(files, name), 'utf8')),
    epoch,
  })
  const problems = statementProblems(statements, partsOf(sbom))
  if (problems.length > 0) throw new Error(`helm/vex.json:\n${problems.join('\n')}`)

  const write = (name: string, mediaType: string, content: unknown): Attachment => {
    writeFileSync(join(out, name), `${JSON.stringify(content, null, 2)}\n`)
    return { path: join(out, name), name, mediaType }
  }
  const cyclonedx = 'application/vnd.cyclonedx+json'
  const attachments = [
    write('cloakroom.cdx.json', cyclonedx, sbom),
    write('cloakroom.vex.cdx.json', cyclonedx, vexDocument(statements, sbom)),
    write(
      'cloakroom.provenance.json',
      'application/vnd.in-toto+json',
      provenance({
        image: { name: tag, digest },
        source,
        lockDigest: createHash('sha256')
          .update(readFileSync(join(ROOT, 'package-lock.json')))
          .digest('hex'),
        bases,
        arguments: args,
        builder: {
          id: process.env.BUILDER_ID ?? 'urn:cloakroom:npm-run-image',
          version: { podman: run('podman', '--version') },
        },
        startedOn,
        finishedOn: new Date().toISOString(),
      }),
    ),
  ]
  return { attachments, sbom, statements }
}

/** The bases that a Dockerfile names in its arguments, with the digests that they have here. */
function basesOf(dockerfile: string): { name: string; digest: string }[] {
  return [...dockerfile.matchAll(/^ARG \w+_IMAGE=(\S+)$/gm)].map(([, name = '']) => {
    if (spawnSync('podman', ['image', 'exists', name]).status !== 0) run('podman', 'pull', '--quiet', name)
    return { name, digest: run('podman', 'image', 'inspect', '--format', '{{.Digest}}', name) }
  })
}

function save(name: string, target: string): string {
  run('podman', 'save', '--quiet', '--format=docker-dir', '--compress', '--output', target, name)
  return target
}

/** The image's file system in a folder. */
function unpack(name: string, target: string): string {
  mkdirSync(target)
  const container = run('podman', 'create', '--no-healthcheck', name)
  try {
    run('podman', 'export', '--output', `${target}.tar`, container)
    run('tar', '-xf', `${target}.tar`, '-C', target)
  } finally {
    run('podman', 'rm', container)
    rmSync(`${target}.tar`, { force: true })
  }
  return target
}

function inImage(name: string, ...args: string[]): string {
  return run('podman', 'run', '--rm', '--no-healthcheck', '--entrypoint=/nodejs/bin/node', name, ...args)
}

/**
 * What the npm that runs this script says about the packages of the lock file, parsed. None is omitted: `--omit=peer` leaves
 * out also what is a dependency of ours and a peer of another's. What is shipped is known from the image.
 */
function npm(...args: string[]): unknown {
  const { npm_execpath: path } = process.env
  return JSON.parse(path ? run(process.execPath, path, ...args) : run('npm', ...args))
}

function shipped(files: string) {
  const manifests = globSync('app/node_modules/**/package.json', { cwd: files })
  return packagesOf(manifests.map((path) => join(files, path)))
}

const megabytes = (bytes: number) => `${(bytes / 1e6).toFixed(1)} MB`.padStart(9)

function sizeOf(folder: string): number {
  const all = globSync('**', { cwd: folder, withFileTypes: true })
  return all
    .filter((entry) => entry.isFile())
    .reduce((sum, entry) => sum + statSync(join(entry.parentPath, entry.name)).size, 0)
}

function report(
  tag: string,
  { files, digest, saved }: { files: string; digest: string; saved: string },
): void {
  const size = Number(run('podman', 'image', 'inspect', '--format', '{{.Size}}', tag))
  const { layers } = JSON.parse(readFileSync(join(saved, 'manifest.json'), 'utf8')) as {
    layers: { size: number }[]
  }
  const compressed = layers.reduce((sum, layer) => sum + layer.size, 0)
  const base = sizeOf(files) - sizeOf(join(files, 'app'))
  say(
    `${tag} ${digest}\n${megabytes(size)} in ${layers.length} layers, ${megabytes(compressed).trim()} compressed, of it:`,
  )
  say(
    `${megabytes(base)}  the base; its Node.js ${megabytes(statSync(join(files, 'nodejs/bin/node')).size).trim()}`,
  )
  for (const name of ['node_modules', 'dist', 'compile-cache'])
    say(`${megabytes(sizeOf(join(files, 'app', name)))}  /app/${name}`)
  const packages = shipped(files)
    .filter(({ folder }) => !folder.replace(/^.*?\/app\/node_modules/, '').includes('node_modules'))
    .map((each) => ({ ...each, bytes: sizeOf(each.folder) }))
    .sort((a, b) => b.bytes - a.bytes)
  say(`the largest of ${packages.length} packages:`)
  for (const { name, version, bytes } of packages.slice(0, 8)) say(`${megabytes(bytes)}  ${name} ${version}`)
}

/** What `npm audit` knows and helm/vex.json does not judge; it ends the build, because a person has to. */
function auditWords(statements: readonly Statement[], parts: ReadonlySet<string>): string {
  let audit: Audit
  try {
    audit = npm('audit', '--json') as Audit
  } catch (error) {
    // npm audit ends with 1 when it finds something, and prints it all the same.
    const found = /\{[\s\S]*"vulnerabilities"[\s\S]*\}/.exec(String(error))?.[0]
    if (found === undefined) return 'npm audit: NOT RUN, the registry does not answer it'
    audit = JSON.parse(found)
  }
  const open = unassessed(audit, statements, parts)
  if (open.length > 0) throw new Error(`judge these in helm/vex.json: ${open.join(', ')}`)
  return 'npm audit: nothing that is not judged'
}

/** Holds documents against CycloneDX's own schemas, with its own library. */
function schemaWords(documents: readonly Attachment[]): string {
  const packages = ['@cyclonedx/cyclonedx-library@10', 'ajv@8', 'ajv-formats@3', 'ajv-formats-draft2019@1']
  const cache = join(ROOT, 'node_modules/.cache/cyclonedx')
  mkdirSync(cache, { recursive: true })
  if (!existsSync(join(cache, 'node_modules/ajv'))) {
    writeFileSync(join(cache, 'package.json'), '{}')
    const { status } = spawnSync(
      'npm',
      ['install', '--ignore-scripts', '--no-audit', '--no-fund', ...packages],
      { cwd: cache },
    )
    if (status !== 0) return 'CycloneDX schema: NOT CHECKED, its library cannot be had'
  }
  const script = `const { Validation: { JsonStrictValidator } } = require('@cyclonedx/cyclonedx-library')
const fs = require('node:fs')
;(async () => { for (const file of process.argv.slice(1)) {
  const text = fs.readFileSync(file, 'utf8')
  const wrong = await new JsonStrictValidator(JSON.parse(text).specVersion).validate(text)
  if (wrong !== null) { console.error(file, JSON.stringify(wrong)); process.exitCode = 1 }
} })()`
  const paths = documents.map(({ path }) => path)
  const { status, stderr } = spawnSync(process.execPath, ['--eval', script, ...paths], {
    cwd: cache,
    encoding: 'utf8',
  })
  if (status !== 0) throw new Error(`not valid by the schema of CycloneDX: ${stderr}`)
  return 'CycloneDX schema: both documents are valid'
}

const { values } = parseArgs({
  options: {
    tag: { type: 'string', default: 'localhost/cloakroom:latest' },
    out: { type: 'string', default: join(ROOT, 'node_modules/.cache/image') },
    source: { type: 'string', default: process.env.SOURCE_URL ?? 'unknown' },
    start: { type: 'string' },
    twice: { type: 'boolean', default: false },
    help: { type: 'boolean', default: false },
  },
})
if (values.help) say(USAGE)
else if (spawnSync('podman', ['--version']).status !== 0) {
  process.stderr.write('NOT RUN: this needs podman\n')
  process.exitCode = 1
} else
  await main(values).catch((error: Error) => {
    process.stderr.write(`${error.message}\n`)
    process.exitCode = 1
  })
