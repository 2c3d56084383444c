import { Lab } from './lab.ts';

await using lab = await Lab.start({ nodes: 0, image: { extraPackages: ['cinder-common'] } });
console.log(
  (await lab.storage.exec('which cinder-rtstool; df -h /; time cinder-rtstool --help 2>&1 | head -5', { check: false }))
    .stdout,
);
