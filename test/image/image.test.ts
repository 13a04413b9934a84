import assert from 'node:assert/strict'
import { spawn, spawnSync } from 'node:child_process'
import { randomBytes } from 'node:crypto'
import { once } from 'node:events'
import { existsSync, globSync, mkdirSync, mkdtempSync, readFileSync, rmSync, writeFileSync } from 'node:fs'
import { type AddressInfo, createServer } from 'node:net'
import { tmpdir } from 'node:os'
import { dirname, join } from 'node:path'
import { after, before, describe, test } from 'node:test'
import { fileURLToPath } from 'node:url'
import { bundle } from './bundle.ts'
import { digestOf, writeLayout } from './layout.ts'
import { noticesOf, packagesOf } from './notices.ts'
import { provenance } from './provenance.ts'
import { namesIn } from './prune.ts'
import { type Bom, imageSbom } from './sbom.ts'
import { partsOf, type Statement, statementProblems, unassessed, vexDocument } from './vex.ts'

const ROOT = fileURLToPath(new URL('../..', import.meta.url))
const json = (path: string) => JSON.parse(readFileSync(path, 'utf8'))

let folder = ''
before(() => {
  folder = mkdtempSync(join(tmpdir(), 'cloakroom-image-'))
})
after(() => rmSync(folder, { recursive: true, force: true }))

/** Writes files below the folder of this test file, and tells where. */
function tree(name: string, files: Readonly<Record<string, string>>): string {
  const root = join(folder, name)
  for (const [path, text] of Object.entries(files)) {
    mkdirSync(dirname(join(root, path)), { recursive: true })
    writeFileSync(join(root, path), text)
  }
  return root
}

describe('what is pruned from the image', () => {
  const prune = (root: string) =>
    spawnSync(
      process.execPath,
      ['--experimental-import-meta-resolve', '--no-warnings', join(ROOT, 'test/image/prune.ts'), root],
      { encoding: 'utf8' },
    )

  test('only what an import or a require reaches stays, with the manifests that say what format it has', () => {
    const root = tree('app', {
      'package.json': '{"type":"module"}',
      'dist/main.js': "import { a } from 'twins'\nawait import('./late.js')",
      'dist/main.js.map': '{}',
      'dist/late.js': "import { createRequire } from 'node:module'\ncreateRequire(import.meta.url)('old')",
      'dist/client.d.ts': '',
      'dist/page.html': '<p>',
      'node_modules/twins/package.json': JSON.stringify({
        ...{ name: 'twins', version: '1.0.0', license: 'MIT', author: 'A <a@example.com>' },
        exports: { import: './esm/index.js', require: './cjs/index.js' },
      }),
      'node_modules/twins/esm/package.json': '{"type":"module"}',
      'node_modules/twins/esm/index.js': "export { b as a } from './b.js'",
      'node_modules/twins/esm/b.js': 'export const b = 1',
      'node_modules/twins/cjs/index.js': '',
      'node_modules/old/package.json': '{"name":"old","version":"2.0.0","license":"ISC","main":"lib"}',
      'node_modules/old/LICENSE': 'The licence of old',
      'node_modules/old/README.md': '',
      'node_modules/old/lib/index.js':
        "const data = require('./data'); require('inner') // require('unused')",
      'node_modules/old/lib/data.json': '{}',
      'node_modules/old/node_modules/inner/package.json': '{"name":"inner","version":"3.0.0"}',
      'node_modules/old/node_modules/inner/index.js': '',
      'node_modules/unused/package.json': '{"name":"unused","version":"9.0.0"}',
      'node_modules/unused/index.js': '',
      'node_modules/.bin/old': '',
    })
    const { status, stderr } = prune(root)
    assert.equal(status, 0, stderr)
    const there = (path: string) => existsSync(join(root, path))
    for (const path of [
      ...['dist/main.js', 'dist/late.js', 'dist/page.html', 'node_modules/old/lib/data.json'],
      ...['node_modules/twins/esm/index.js', 'node_modules/twins/esm/b.js'],
      ...['node_modules/twins/esm/package.json', 'node_modules/twins/package.json'],
      ...['node_modules/old/node_modules/inner/index.js'],
    ])
      assert.ok(there(path), path)
    for (const path of [
      ...['dist/main.js.map', 'dist/client.d.ts', 'node_modules/twins/cjs', 'node_modules/unused'],
      'node_modules/.bin',
      ...['node_modules/old/README.md', 'node_modules/old/LICENSE'],
    ])
      assert.ok(!there(path), path)
    const notices = readFileSync(join(root, 'THIRD-PARTY-NOTICES'), 'utf8')
    assert.match(notices, /old 2\.0\.0 \(ISC\)\n\nThe licence of old/)
    assert.match(notices, /twins 1\.0\.0 \(MIT\)\n\nLicence: MIT\. Author: A <a@example\.com>/)
    assert.doesNotMatch(notices, /unused/)
  })

  test('a file that loads by a computed name ends the build, until a person has read it', () => {
    const root = tree('computed', {
      'dist/main.js': "import 'plugin'",
      'node_modules/plugin/package.json': '{"name":"plugin","version":"1.0.0","main":"index.js"}',
      'node_modules/plugin/index.js': 'require(process.env.PLUGIN)',
    })
    const { status, stderr } = prune(root)
    assert.notEqual(status, 0)
    assert.match(stderr, /node_modules\/plugin\/index\.js/)
    assert.ok(existsSync(join(root, 'node_modules/plugin/index.js')))
  })

  test('names are found however they are written, and not in comments', () => {
    const names = namesIn(`
      import a, { b } from "a"; import 'b'; export * from './c.js'
      const d = await import(\`d\`); require . resolve; require.resolve('e'); require("f")
      // require('no')
      /* import('no') */
      new URL('./g.html', import.meta.url); path.join(__dirname, 'h.js')
    `)
    assert.deepEqual([...names.imported].sort(), ['./c.js', 'a', 'b', 'd'])
    assert.deepEqual([...names.required].sort(), ['e', 'f'])
    assert.deepEqual([...names.beside].sort(), ['./g.html', 'h.js'])
    assert.equal(names.isComputed, false)
    for (const code of [
      'require(name)',
      ['import(`./$', '{x}.js`)'].join(''),
      'const r = createRequire(import.meta.url)',
    ])
      assert.equal(namesIn(code).isComputed, true, code)
  })

  test('the same licence text stands once, below all of its packages', () => {
    const root = tree('licences', {
      'a/package.json': '{"name":"a","version":"1.0.0","license":"MIT"}',
      'a/LICENSE': 'shared\r\ntext',
      'b/package.json': '{"name":"b","version":"1.0.0","license":"MIT"}',
      'b/license.md': 'shared\ntext\n',
      'b/esm/package.json': '{"type":"module"}',
    })
    const manifests = ['b/package.json', 'a/package.json', 'b/esm/package.json'].map((path) =>
      join(root, path),
    )
    const notices = noticesOf(packagesOf(manifests), join(root, 'none'))
    assert.match(notices, /a 1\.0\.0 \(MIT\)\nb 1\.0\.0 \(MIT\)\n\nshared\ntext/)
    assert.equal(notices.match(/shared/g)?.length, 1)
  })
})

test('the build leaves out sources, documents and the launcher alone: the files that are served all go into it', () => {
  const { build } = json(join(ROOT, 'package.json')).scripts
  const [, pattern = ''] = /filter:f=>!\/(.+)\/\.test\(f\)/.exec(build) ?? []
  const isLeftOut = (path: string) => new RegExp(pattern).test(path)
  const others = globSync('src/**/*.*', { cwd: ROOT }).filter((path) => !/\.(ts|md)$/.test(path))
  assert.ok(others.includes('src/demo/spa/cloakroom.js'))
  assert.deepEqual(others.filter(isLeftOut), ['src/cloakroom.js'])
})

describe('the bundle of the image', () => {
  const files = {
    'package.json': '{"type":"module"}',
    'dist/main.js':
      "import { place } from './deep/place.js'\nimport { old } from 'old'\nif (process.argv[2]) await import('./late.js')\nelse console.log(place(), old.name)",
    'dist/main.js.map': '{}',
    'dist/late.js': "console.log('late')\nfunction fails() {\n  throw new Error('x')\n}\nfails()",
    'dist/late.js.map': '{}',
    'dist/types.js': 'export {}',
    'dist/types.js.map': '{}',
    'dist/deep/place.js':
      "import { readFileSync } from 'node:fs'\nexport const place = () => readFileSync(new URL('page.txt', import.meta.url), 'utf8')",
    'dist/deep/place.js.map': '{}',
    'dist/deep/page.txt': 'the page',
    'dist/deep/browser.js': 'document',
    'dist/deep/browser.js.map': '{}',
    'dist/deep/browser.d.ts': '',
    'node_modules/old/package.json': '{"name":"old","version":"1.0.0","license":"MIT"}',
    'node_modules/old/index.js':
      "const { basename } = require('path')\nexports.old = class Old {}\nexports.unused = basename\nexports.quote = /[“”]/",
    'node_modules/old/LICENSE': 'The licence of old',
  }
  const run = (root: string, ...args: string[]) =>
    spawnSync(process.execPath, [join(root, 'dist/main.js'), ...args], { encoding: 'utf8' })

  test('modules are joined and find their files, a part loads when it is used, and names and lines are told as they are', async () => {
    const root = tree('bundled', files)
    await bundle(root)
    // Moves away, so that nothing but the bundle is left to load.
    rmSync(join(root, 'node_modules/old/index.js'))
    assert.equal(run(root).stdout, 'the page Old\n')
    const there = ['browser.js', 'browser.js.map', 'browser.d.ts', 'page.txt']
    assert.deepEqual(globSync('*', { cwd: join(root, 'dist/deep') }).sort(), there.sort())
    assert.ok(!existsSync(join(root, 'dist/types.js')))
    const { stdout, stderr } = run(root, 'late')
    assert.equal(stdout, 'late\n')
    const [, file = '', line] = /at fails \(file:\/\/(\S+late-\S+\.js):(\d+):/.exec(stderr) ?? []
    assert.match(readFileSync(file, 'utf8').split('\n')[Number(line) - 1]!, /throw new Error/, stderr)
    assert.match(readFileSync(file, 'utf8'), /^\/\/ dist\/late\.js$/m)
    assert.deepEqual(json(join(root, 'dist/bundled.json')), ['node_modules/old/package.json'])
  })

  test('modules of Node.js are taken as they are named, and what only others use of them is not loaded', async () => {
    const root = tree('bundled-builtins', {
      ...files,
      'dist/main.js': `import * as all from 'node:os'
import one, { sep, join as joined } from 'node:path'
import { METHODS } from 'http'
import './late.js'
const isLoaded = process.moduleLoadList.includes('NativeModule internal/deps/undici/undici')
console.log(typeof all.cpus, one.sep === sep, joined('a', 'b'), METHODS.length > 9, isLoaded)`,
      'dist/late.js': "import process from 'node:process'\nif (!process.pid) process.exit(1)",
    })
    await bundle(root)
    assert.equal(run(root).stdout, 'function true a/b true false\n')
  })

  test('licences are beside the bundle, which is in ASCII and means what its modules did', async () => {
    const root = tree('bundled-ascii', {
      ...files,
      'dist/main.js': "import { quote } from 'old'\n// “\nconsole.log('“'.match(quote)?.[0], '“')",
    })
    await bundle(root)
    assert.match(readFileSync(join(root, 'dist/main.js'), 'utf8'), /^[\0-\x7f]+$/)
    assert.equal(run(root).stdout, '“ “\n')
    assert.match(
      readFileSync(join(root, 'dist/THIRD-PARTY-NOTICES'), 'utf8'),
      /old 1\.0\.0 \(MIT\)\n\nThe licence of old/,
    )
  })

  test('the same modules give the same files, and a package that cannot be found ends the build', async () => {
    const texts = (root: string) =>
      globSync('dist/*.js', { cwd: root })
        .sort()
        .map((name) => [name, readFileSync(join(root, name), 'utf8')])
    const [one, two] = [tree('bundled-1', files), tree('bundled-2', files)]
    await Promise.all([bundle(one), bundle(two)])
    assert.deepEqual(texts(one), texts(two))
    const bad = tree('bundled-bad', { ...files, 'dist/late.js': "import 'absent'" })
    await assert.rejects(bundle(bad), /absent/)
  })

  test('of a package in the bundle its package.json and its licence stay, for scanners that list what is in the image', async () => {
    const root = tree('bundled-pruned', files)
    await bundle(root)
    const { status, stderr } = spawnSync(
      process.execPath,
      ['--experimental-import-meta-resolve', '--no-warnings', join(ROOT, 'test/image/prune.ts'), root],
      { encoding: 'utf8' },
    )
    assert.equal(status, 0, stderr)
    assert.deepEqual(globSync('node_modules/old/*', { cwd: root }), ['node_modules/old/package.json'])
    assert.ok(!existsSync(join(root, 'dist/THIRD-PARTY-NOTICES')))
    assert.match(readFileSync(join(root, 'THIRD-PARTY-NOTICES'), 'utf8'), /old 1\.0\.0 \(MIT\)/)
  })
})

const component = (name: string, version: string) => ({
  ...{ 'bom-ref': `${name}@${version}`, type: 'library', name, version, purl: `pkg:npm/${name}@${version}` },
})
const npmBom = {
  ...{
    $schema: 'http://cyclonedx.org/schema/bom-1.5.schema.json',
    bomFormat: 'CycloneDX',
    specVersion: '1.5',
  },
  ...{ serialNumber: 'urn:uuid:00000000-0000-4000-8000-000000000000', version: 1 },
  metadata: { timestamp: 'now', component: component('cloakroom-bff', '0.1.0') },
  components: [component('kept', '1.0.0'), component('pruned', '1.0.0')],
  dependencies: [
    { ref: 'cloakroom-bff@0.1.0', dependsOn: ['kept@1.0.0', 'pruned@1.0.0'] },
    { ref: 'kept@1.0.0', dependsOn: ['pruned@1.0.0'] },
    { ref: 'pruned@1.0.0', dependsOn: [] },
  ],
} as Bom
const parts = {
  shipped: new Set(['kept@1.0.0']),
  node: { node: '24.1.0', openssl: '3.5.0', modules: '137' },
  base: 'base:1',
  debian: ['Package: libc6\nVersion: 2.36-9+deb12u9\nArchitecture: amd64\n', 'nothing'],
  epoch: 86_400,
}

describe('the SBOM of the image', () => {
  const sbom = imageSbom(npmBom, parts)

  test('it lists the packages that are shipped, Node.js with its libraries, and the packages of the base', () => {
    assert.deepEqual(
      [...partsOf(sbom)],
      ['kept@1.0.0', 'node@24.1.0', 'openssl@3.5.0', 'libc6@2.36-9+deb12u9'],
    )
    assert.equal(sbom.components[2]?.purl, 'pkg:deb/debian/libc6@2.36-9%2Bdeb12u9?arch=amd64')
    assert.deepEqual(sbom.dependencies, [
      {
        ref: 'cloakroom-bff@0.1.0',
        dependsOn: ['kept@1.0.0', 'node@24.1.0', sbom.components[2]!['bom-ref']],
      },
      { ref: 'kept@1.0.0', dependsOn: [] },
    ])
  })

  test('the same parts give the same document, and other parts another serial number', () => {
    assert.deepEqual(imageSbom({ ...npmBom, serialNumber: 'urn:uuid:another' }, parts), sbom)
    assert.equal(sbom.metadata.timestamp, '1970-01-02T00:00:00.000Z')
    assert.match(
      sbom.serialNumber,
      /^urn:uuid:[0-9a-f]{8}-[0-9a-f]{4}-8[0-9a-f]{3}-[89ab][0-9a-f]{3}-[0-9a-f]{12}$/,
    )
    assert.notEqual(imageSbom(npmBom, { ...parts, node: { node: '24.2.0' } }).serialNumber, sbom.serialNumber)
  })

  test('a package that is shipped and that npm does not list ends the build', () => {
    const shipped = new Set(['kept@1.0.0', 'peer@2.0.0'])
    assert.throws(() => imageSbom(npmBom, { ...parts, shipped }), /peer@2\.0\.0/)
  })

  test('a base that tells of no packages is said to be unknown, not empty', () => {
    const { compositions } = imageSbom(npmBom, { ...parts, debian: [] })
    assert.deepEqual(
      (compositions as { aggregate: string }[]).map(({ aggregate }) => aggregate),
      ['complete', 'unknown'],
    )
  })
})

describe('the VEX document of the image', () => {
  const lock = json(join(ROOT, 'package-lock.json')).packages as Record<
    string,
    { version: string; dev?: boolean }
  >
  const production = Object.entries(lock).flatMap(([path, { version, dev }]) =>
    path === '' || dev ? [] : [`${path.replace(/^.*node_modules\//, '')}@${version}`],
  )

  test('each statement of helm/vex.json is about a part that is shipped, and says why', () => {
    const statements: Statement[] = json(join(ROOT, 'helm/vex.json'))
    // Node.js with its libraries, and the packages of the base, are known when the image is built.
    const nameOf = (part: string) => part.slice(0, part.lastIndexOf('@'))
    const names = new Set(production.map(nameOf))
    const ofPackages = statements.filter(({ component }) => names.has(nameOf(component)))
    assert.deepEqual(statementProblems(ofPackages, new Set(production)), [])
  })

  test('a statement about another part, without a reason or with an unknown word is refused', () => {
    const good = { id: 'CVE-2026-12345', component: 'kept@1.0.0', state: 'not_affected' }
    const reason = { justification: 'code_not_reachable', detail: 'It is never called.' }
    const problems = (over: object) =>
      statementProblems([{ ...good, ...reason, ...over }], new Set(['kept@1.0.0'])).join()
    assert.equal(problems({}), '')
    assert.match(problems({ component: 'kept@1.0.1' }), /no part of the image/)
    assert.match(problems({ justification: undefined }), /needs a justification/)
    assert.match(problems({ state: 'fine' }), /none of/)
    assert.match(problems({ detail: ' ' }), /says nothing/)
    assert.match(problems({ id: 'CVE-1' }), /no CVE/)
  })

  test('its statements point into the SBOM, and without any it is an empty list', () => {
    const sbom = imageSbom(npmBom, parts)
    const detail = 'It is never called.'
    const statement = { id: 'CVE-2026-12345', component: 'kept@1.0.0', state: 'in_triage', detail }
    const [vulnerability] = vexDocument([statement], sbom).vulnerabilities
    const id = sbom.serialNumber.replace('urn:uuid:', '')
    assert.deepEqual(vulnerability?.affects, [{ ref: `urn:cdx:${id}/1#kept%401.0.0` }])
    assert.deepEqual(vexDocument([], sbom).vulnerabilities, [])
  })

  test('an advisory that npm knows about a shipped part, and no statement judges, is named', () => {
    const via = [{ url: 'https://github.com/advisories/GHSA-aaaa-bbbb-cccc' }, 'another']
    const audit = { vulnerabilities: { kept: { via }, unshipped: { via } } }
    const shipped = new Set(['kept@1.0.0'])
    assert.deepEqual(unassessed(audit, [], shipped), ['GHSA-aaaa-bbbb-cccc (kept)'])
    const judged = { id: 'GHSA-aaaa-bbbb-cccc', component: 'kept@1.0.0', state: 'in_triage', detail: 'Soon.' }
    assert.deepEqual(unassessed(audit, [judged], shipped), [])
  })
})

test('the provenance names the image by its digest, and the sources, lock file and bases that it is made of', () => {
  const digest = `sha256:${'a'.repeat(64)}`
  const statement = provenance({
    image: { name: 'cloakroom:1', digest },
    source: { uri: 'https://git.example/cloakroom', revision: 'b'.repeat(40), isClean: true },
    lockDigest: 'c'.repeat(64),
    bases: [{ name: 'base:1', digest: `sha256:${'d'.repeat(64)}` }],
    arguments: {},
    builder: { id: 'https://ci.example', version: {} },
    startedOn: '2026-01-01T00:00:00.000Z',
    finishedOn: '2026-01-01T00:01:00.000Z',
  })
  assert.equal(statement._type, 'https://in-toto.io/Statement/v1')
  assert.equal(statement.predicateType, 'https://slsa.dev/provenance/v1')
  assert.deepEqual(statement.subject, [{ name: 'cloakroom:1', digest: { sha256: 'a'.repeat(64) } }])
  assert.deepEqual(
    statement.predicate.buildDefinition.resolvedDependencies.map(
      ({ digest }) => Object.values(digest)[0]?.[0],
    ),
    ['b', 'c', 'd'],
  )
})

test('the layout holds the image under the digest of its manifest, and each file as a referrer of it', () => {
  const blob = 'e'.repeat(64)
  const manifest = { mediaType: 'application/vnd.docker.distribution.manifest.v2+json' }
  const saved = tree('saved', {
    'manifest.json': JSON.stringify(manifest),
    version: '1',
    [blob]: 'layer',
    'sbom.json': '{}',
  })
  const target = join(folder, 'oci')
  const attachment = {
    path: join(saved, 'sbom.json'),
    name: 'sbom.json',
    mediaType: 'application/vnd.cyclonedx+json',
  }
  const image = writeLayout(target, saved, { tag: '1', attachments: [attachment] })
  assert.equal(image.digest, digestOf(saved))
  const blobOf = (digest: string) => join(target, 'blobs/sha256', digest.replace('sha256:', ''))
  const [first, referrer] = json(join(target, 'index.json')).manifests
  assert.deepEqual([first.digest, referrer.artifactType], [image.digest, attachment.mediaType])
  const body = json(blobOf(referrer.digest))
  assert.deepEqual(body.subject, image)
  assert.equal(readFileSync(blobOf(body.layers[0].digest), 'utf8'), '{}')
  assert.ok(existsSync(blobOf(blob)) && !existsSync(blobOf('version')))
})

describe('the first process of a container', () => {
  /** Sends the signal to the process itself just when it loads what the command needs. */
  const hook = `import { registerHooks } from 'node:module'
    registerHooks({ load: (url, context, next) => {
      if (/\\/cli\\/(serve|doctor\\/doctor)\\.ts$/.test(url)) process.kill(process.pid, 'SIGTERM')
      return next(url, context)
    } })`
  const random = () => randomBytes(32).toString('base64url')
  const secrets = { SECRET: random(), KEY: random() }
  const started = async (...args: string[]) => {
    const child = spawn(
      process.execPath,
      ['--import', `data:text/javascript,${encodeURIComponent(hook)}`, join(ROOT, 'src/main.ts'), ...args],
      { stdio: ['ignore', 'pipe', 'inherit'], env: { ...process.env, ...secrets } },
    )
    let said = ''
    child.stdout.on('data', (chunk) => (said += chunk))
    const [code, signal] = await once(child, 'close')
    return { code, signal, said }
  }

  const config = (provider: number) => `
publicUrl: https://app.example.com
listen: 127.0.0.1:0
admin: { listen: 127.0.0.1:0 }
provider: { issuer: "https://127.0.0.1:${provider}", clientId: a, clientAuth: { method: client_secret_post, secret: { env: SECRET } } }
session: { keys: [{ env: KEY }], store: { type: memory } }
routes: [{ path: /, upstream: "http://127.0.0.1:1" }]
`
  // Takes connections and never answers, so that the doctor waits.
  const silent = createServer()
  const configFile = (provider: number) =>
    join(tree(`early-${provider}`, { 'cloakroom.yaml': config(provider) }), 'cloakroom.yaml')
  before(async () => {
    await once(silent.listen(0, '127.0.0.1'), 'listening')
  })
  after(() => silent.close())

  test('a SIGTERM that comes while the proxy is still being loaded ends it with 0: it is caught before anything else', async () => {
    const { code, signal, said } = await started('serve', '--config', configFile(1))
    assert.deepEqual([code, signal], [0, null], said)
    assert.match(said, /"signal":"SIGTERM","msg":"stopped/)
  })

  test('a command that does not run until it is stopped ends at a signal, with the code that a shell expects', async () => {
    const { port } = silent.address() as AddressInfo
    const { code, signal, said } = await started('doctor', '--config', configFile(port))
    assert.deepEqual([code, signal], [143, null], said)
  })
})
