// The token vectors, as `jose` judges them: it reads the file named by its argument and prints a verdict for each test.

import { readFile } from 'node:fs/promises';

import { createLocalJWKSet, jwtVerify } from 'jose';

const vectors = JSON.parse(await readFile(process.argv[2], 'utf8'));
const keys = createLocalJWKSet({ keys: vectors.keys });
const verdicts = {};

for (const test of vectors.tests) {
  try {
    const { payload } = await jwtVerify(test.token, keys, {
      issuer: vectors.issuer,
      audience: test.audiences,
      typ: 'at+jwt',
      requiredClaims: ['sub', 'client_id', 'jti', 'iat', 'exp', 'aud'],
      currentDate: new Date(test.now * 1000),
    });
    verdicts[test.tcId] = payload;
  } catch (error) {
    verdicts[test.tcId] = error.code ?? error.name;
  }
}
process.stdout.write(JSON.stringify(verdicts));
