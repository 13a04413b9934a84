/** What an image was made of. */
export type BuildFacts = {
  readonly image: { readonly name: string; readonly digest: string }
  readonly source: { readonly uri: string; readonly revision: string; readonly isClean: boolean }
  /** SHA-256 of package-lock.json, hexadecimal. */
  readonly lockDigest: string
  readonly bases: readonly { readonly name: string; readonly digest: string }[]
  readonly arguments: Readonly<Record<string, string>>
  readonly builder: { readonly id: string; readonly version: Readonly<Record<string, string>> }
  /** ISO 8601. */
  readonly startedOn: string
  readonly finishedOn: string
}

const digestOf = (digest: string) => ({ sha256: digest.replace('sha256:', '') })

/**
 * The provenance of an image: an in-toto statement v1 with the predicate SLSA Provenance v1. It is what the builder says
 * of itself; only a signature by a builder that others trust makes it more.
 */
export function provenance(facts: BuildFacts) {
  const { image, source, lockDigest, bases, builder, startedOn, finishedOn } = facts
  return {
    _type: 'https://in-toto.io/Statement/v1',
    subject: [{ name: image.name, digest: digestOf(image.digest) }],
    predicateType: 'https://slsa.dev/provenance/v1',
    predicate: {
      buildDefinition: {
        buildType: 'https://mobyproject.org/buildkit@v1?dockerfile=Dockerfile',
        externalParameters: { dockerfile: 'Dockerfile', arguments: facts.arguments },
        internalParameters: { sourceIsClean: source.isClean },
        resolvedDependencies: [
          { uri: source.uri, digest: { gitCommit: source.revision }, name: 'source' },
          { uri: 'package-lock.json', digest: { sha256: lockDigest }, name: 'dependencies' },
          ...bases.map(({ name, digest }) => ({
            uri: `oci://${name}`,
            digest: digestOf(digest),
            name: 'base',
          })),
        ],
      },
      runDetails: {
        builder,
        metadata: { invocationId: `${source.revision}-${startedOn}`, startedOn, finishedOn },
      },
    },
  }
}
