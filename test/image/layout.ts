import { createHash } from 'node:crypto'
import { copyFileSync, mkdirSync, readdirSync, readFileSync, writeFileSync } from 'node:fs'
import { join } from 'node:path'

/** OCI image specification: a descriptor. */
export type Descriptor = {
  readonly mediaType: string
  readonly digest: string
  readonly size: number
  readonly artifactType?: string
  readonly annotations?: Readonly<Record<string, string>>
}

/** A file that goes with an image, with the media type that it has in a registry. */
export type Attachment = { readonly path: string; readonly name: string; readonly mediaType: string }

const MANIFEST = 'application/vnd.oci.image.manifest.v1+json'
const EMPTY = 'application/vnd.oci.empty.v1+json'
const sha256 = (bytes: string | Uint8Array) => createHash('sha256').update(bytes).digest('hex')

/**
 * Makes an OCI image layout of what `podman save --format docker-dir` wrote into a folder, and of files about the image,
 * each as a referrer (OCI image specification 1.1, `subject`). `oras cp --recursive --from-oci-layout` pushes all of it.
 *
 * @returns the image's descriptor: its digest is the one that it has in a registry.
 */
export function writeLayout(
  target: string,
  saved: string,
  { tag, attachments }: { tag: string; attachments: readonly Attachment[] },
): Descriptor {
  const blobs = join(target, 'blobs/sha256')
  mkdirSync(blobs, { recursive: true })
  for (const file of readdirSync(saved))
    if (/^[0-9a-f]{64}$/.test(file)) copyFileSync(join(saved, file), join(blobs, file))
  const put = (mediaType: string, bytes: string | Uint8Array): Descriptor => {
    const digest = sha256(bytes)
    writeFileSync(join(blobs, digest), bytes)
    return { mediaType, digest: `sha256:${digest}`, size: Buffer.byteLength(bytes) }
  }
  const manifest = readFileSync(join(saved, 'manifest.json'), 'utf8')
  const image = put(JSON.parse(manifest).mediaType, manifest)
  const named = { ...image, annotations: { 'org.opencontainers.image.ref.name': tag } }
  const referrers = attachments.map(({ path, name, mediaType }) => {
    const layer = put(mediaType, readFileSync(path))
    const described = { ...layer, annotations: { 'org.opencontainers.image.title': name } }
    const body = {
      schemaVersion: 2,
      mediaType: MANIFEST,
      artifactType: mediaType,
      config: put(EMPTY, '{}'),
      layers: [described],
      subject: image,
    }
    return { ...put(MANIFEST, JSON.stringify(body)), artifactType: mediaType }
  })
  writeFileSync(join(target, 'oci-layout'), JSON.stringify({ imageLayoutVersion: '1.0.0' }))
  const index = { schemaVersion: 2, mediaType: 'application/vnd.oci.image.index.v1+json' }
  writeFileSync(
    join(target, 'index.json'),
    JSON.stringify({ ...index, manifests: [named, ...referrers] }, null, 2),
  )
  return image
}

/** The digest that an image saved by `podman save --format docker-dir` has in a registry. */
export function digestOf(saved: string): string {
  return `sha256:${sha256(readFileSync(join(saved, 'manifest.json')))}`
}
