"""The unit and the meaning of what studies report beside the names of `aejax.runner.units`."""

from aejax.runner.units import Unit
from experiments.studies.bounds_gradients import DRAWS, ESTIMATORS

METRICS: dict[str, Unit] = {
    "modes": Unit("count", "modes of a mixture of Gaussians that have one of the samples within three deviations"),
    "assigned": Unit("count", "modes that are the nearest of one of the samples, however far"),
    "high_quality": Unit("between 0 and 1", "share of samples that are within three deviations of the nearest mode"),
    "train_code_mmd, train_code_mmd_p": Unit("none", "`code_mmd` and `code_mmd_p` of the codes of training images"),
    "train_own_part, drawn_own_part": Unit(
        "between 0 and 1", "`own_part` of the codes of training images, and of draws from the part of each class"
    ),
    "worst_part, train_worst_part": Unit(
        "between 0 and 1", "of the codes in a part of the prior those of its class, where that is the least"
    ),
    "feature_distance": Unit(
        "none",
        "distance of a reconstruction from its test image in the features of a classifier, over the mean distance of "
        "two test images there; mean over images",
    ),
    "rebuilt_sharpness": Unit("between 0 and 1", "`sharpness` of the reconstructions of test images"),
    "diversity": Unit("none", "mean distance of two samples, over that of two test images, in the same features"),
    "samples_apart": Unit("none", "mean distance of two samples, over that of two test images, in pixels"),
    "sampled_sse": Unit("summed over pixels, mean over samples", "squared error of the reconstruction of samples"),
    "loss_over_margin": Unit(
        "none",
        "EBGAN: loss of the autoencoder over its margin, over the last tenth of the steps; 1 where generated images "
        "are as images are",
    ),
    "num_params": Unit("count", "numbers that are trained, tied weights once"),
    "test_recon_nats, test_kl_nats": Unit("nats per image", "the two parts of `test_bound_nats`, with as many draws"),
    "code_mean_gap": Unit(
        "code units",
        "test codes drawn from their posteriors: largest distance of a mean from that of 10,000 draws of the prior",
    ),
    "code_var_gap": Unit("none", "the same of variances, over the variance of the draws of the prior"),
    "best_denoised_sse": Unit(
        "summed over pixels, mean over images",
        "`denoised_sse` of the linear denoiser of least error, in closed form from the training images",
    ),
    "denoising_excess": Unit(
        "none",
        "expected error of a linear denoiser on the training images, over the least one, less 1",
    ),
    "map_error": Unit(
        "none",
        "deviation of its outputs from those of the best one on corrupted training images, over the deviation of "
        "the latter; root mean squares without the mean",
    ),
    "test_l1_nats, test_l5_nats, test_l50_nats, test_l500_nats": Unit(
        "nats per image",
        "negative importance-weighted bounds `-L_k`, from the draws of `test_nll_nats`; the first is the negative ELBO",
    ),
    ", ".join(f"snr_{estimator}_{k}" for estimator in ESTIMATORS for k in DRAWS): Unit(
        "none",
        "gradient of the encoder on a batch, by estimator and draws of the code: length of its mean over its deviation",
    ),
    "nll_std_error": Unit("nats per image", "Monte Carlo error of `test_nll_nats`, for the images at hand"),
    "best_epoch": Unit("count", "the epoch whose bound on the validation split is lowest"),
    "best_val_nats": Unit("nats per image", "the bound on the validation split in that epoch; of PixelCNN exact"),
    "best_test_nll_nats": Unit("nats per image", "`test_nll_nats` of that epoch"),
    "best_active_units": Unit("count", "`active_units` of that epoch"),
    "frechet": Unit(
        "squared features",
        "Frechet distance of samples from the training images, in the features of a classifier trained on these",
    ),
    "frechet_reconstructed": Unit("squared features", "`frechet` of reconstructions of the test images, or of these"),
    "frechet_prior, frechet_gaussian, frechet_mixture, frechet_flow": Unit(
        "squared features",
        "`frechet` of samples from the model's own prior, and from a Gaussian, a mixture of Gaussians and a flow that "
        "are fitted to its training codes",
    ),
    "precision, recall": Unit(
        "between 0 and 1", "share of samples in the ball of a training image that reaches to its 5th neighbour; reverse"
    ),
    "density": Unit("none", "mean number of such balls that a sample lies in, over 5"),
    "coverage": Unit("between 0 and 1", "share of training images whose ball holds a sample"),
    "sharpness": Unit("between 0 and 1", "share of the squared deviation of pixels that is of high frequencies"),
    "nearest": Unit("none", "mean distance of a sample from its nearest training image, over that of a test image"),
    "rmse": Unit("units of a rating", "root mean squared error of the ratings that were hidden"),
    "decay": Unit("nats per rating", "weight of the squared weights over the mean number of ratings of an example"),
    "cosine": Unit("between 0 and 1", "precision of the first 100 by cosine, of what is no code"),
    "precision_8, precision_16, precision_32, precision_64": Unit(
        "between 0 and 1",
        "share of relevant items among the first 100 by Hamming distance of so many bits, ties by expectation, mean"
        " over queries",
    ),
    "ball_8, ball_16, ball_32, ball_64": Unit(
        "between 0 and 1", "the same of all items within 2 bits, of a query that finds nothing 0"
    ),
    "empty_8, empty_16, empty_32, empty_64": Unit("share of queries", "that find nothing within 2 bits"),
    "recall_20, recall_50": Unit(
        "between 0 and 1",
        "share of what was held out that is among the first k items, or of k where that is less; mean over test users",
    ),
    "ndcg_100": Unit(
        "between 0 and 1", "discounted gain of the first 100 items over that of the best list; mean over test users"
    ),
    "chosen": Unit(
        "none", "number of neighbours, ridge or training pass of highest `ndcg_100` on users held out for validation"
    ),
    "users_per_second": Unit("users per second", "rows that are trained on, after the first step, which compiles"),
    "probe_error": Unit(
        "share of test images",
        "1 less `probe_accuracy`; of sparse codes, a softmax on codes of mean square 1, its epoch chosen on the "
        "validation split",
    ),
    "dimensions": Unit("count", "numbers of an image that logistic regression sees"),
    "alpha": Unit(
        "none",
        "k-sparse: that softmax sees the `alpha k` largest units, `alpha` chosen by its validation error",
    ),
    "knn1_accuracy": Unit("share of test images", "label of the nearest training image, by codes or by pixels"),
    "hidden_knn1_accuracy": Unit("share of test images", "the same by the last hidden layer of the encoder"),
    "train_knn5_accuracy": Unit(
        "share of training images",
        "vote of the 5 nearest other training codes, leaving one out",
    ),
    "train_trustworthiness, test_trustworthiness": Unit(
        "at most 1, about 1/2 at random",
        "whether neighbours in the code are neighbours in the data (Venna & Kaski, 2001)",
    ),
    "train_continuity, test_continuity": Unit("likewise", "whether neighbours in the data are neighbours in the code"),
    "train_neighborhood_hit, test_neighborhood_hit": Unit(
        "between 0 and 1",
        "share of the nearest codes that have the same label, mean over codes",
    ),
    "graph_neighbors": Unit(
        "count",
        "neighbours of each image in the graph of Isomap and LLE, the least from `graph_k` on that connects it",
    ),
    "rate_gap": Unit(
        "none",
        "its deviation from the target over the target, absolute; units above and below it cancel",
    ),
    "rates_within_tenth": Unit(
        "share of units",
        "units whose own mean activation over test images is within a tenth of the target",
    ),
    "effective_rank": Unit(
        "count",
        "`(sum s^2)^2 / sum s^4` of the singular values s of the encoder's Jacobian, mean over the first 200 test"
        " images",
    ),
    "contraction_near, contraction_far": Unit(
        "code units / data units",
        "distance of codes over distance r of inputs, from each of these images to 10 random points at distance "
        "r: a hundredth of, and the mean distance between two of them",
    ),
    "contraction_pairs": Unit("code units / data units", "the same ratio for pairs of these images"),
    "straight_length": Unit(
        "data units",
        "length in data space of the decoded path between two test codes, straight in code space; mean over pairs",
        "data units, decoded straight path, mean over pairs",
    ),
    "shortest_length": Unit(
        "data units",
        "the same of the shortest path",
        "data units, decoded shortest path, mean over pairs",
    ),
    "length_ratio": Unit("none", "shortest over straight, mean over pairs", "shortest over straight, mean over pairs"),
    "length_ratio_min": Unit("none", "the lowest of them", "the lowest"),
    "length_ratio_max": Unit("none", "the highest of them", "the highest"),
    "path_unevenness": Unit(
        "none",
        "energy over squared length of the shortest path, less 1, of the worst pair; 0 where it has settled",
        "of speed along the shortest path, worst pair",
    ),
    "saturation": Unit(
        "share of units and test images",
        "entries of the sigmoid codes below 0.05 or above 0.95, before fine-tuning",
        "share of sigmoid units below 0.05 or above 0.95",
    ),
    "finetuned_error": Unit(
        "share of test images",
        "labels that are wrong after fine-tuning, at the epoch that is best on the validation split",
        "share of test labels wrong after fine-tuning",
    ),
    "finetuned_lr": Unit("per step", "the rate of fine-tuning that is best on the validation split, of those tried"),
    "finetuned_validation_error": Unit(
        "share of validation images",
        "the same on the validation split, which chooses that epoch",
        "the same on the validation split",
    ),
    "finetuned_epoch": Unit("count", "the epoch", "the epoch that is best on it"),
    "cluster_nmi, cluster_ari": Unit(
        "at most 1, the second 0 at random",
        "normalised mutual information and adjusted Rand index of the labels and of k-means on the training codes",
    ),
    "dispersion_error": Unit(
        "none",
        "learned dispersions of genes against the true ones: root mean square of the difference of their logarithms",
    ),
    "dispersion_correlation": Unit("at most 1", "correlation of these logarithms"),
    "score_error": Unit(
        "none",
        "what a DAE takes the score to be, against the true one: root mean square of the difference over draws, "
        "over that of the true score",
    ),
    "smoothing_error": Unit(
        "none",
        "the same for the score of the density with the noise on it, which the best DAE has",
    ),
    "fit_error": Unit("none", "the same for the DAE against that one, still over the true score"),
    "deviation": Unit("data units", "standard deviation that makes a squared error fewest nats, `sqrt(sse / D)`"),
    "unit_nats, best_nats": Unit(
        "nats per image",
        "a squared error as Gaussian likelihood, with variance 1 and with `deviation` squared",
    ),
    "message_nats": Unit("nats per image", "bits back: length of the message, without the bits that it begins with"),
    "bits_per_pixel": Unit("bits per pixel", "the same; of other coders, their files"),
    "net_bits_per_pixel": Unit("bits per pixel", "compression: `bits_per_pixel` of our files without their headers"),
    "estimated_bits_per_pixel": Unit(
        "bits per pixel", "compression: information of the rounded codes under the entropy model"
    ),
    "psnr_db": Unit(
        "dB", "peak signal to noise of 8-bit pixels, `10 log10(255^2 / MSE)` over all of a file; mean over files"
    ),
    "jpeg_bits_per_pixel, webp_bits_per_pixel": Unit(
        "bits per pixel",
        "what the codec needs at the PSNR of ours, file by file, along straight lines of log bits between its settings",
    ),
    "smaller_than_jpeg, smaller_than_webp": Unit("count", "files of ours that are smaller than those"),
    "bound_bits_per_pixel": Unit("bits per pixel", "`test_bound_nats` of the same model, of 16 codes of each image"),
    "file_bits_per_pixel": Unit("bits per pixel", "bits back: the file, with the first bits of the stack and a header"),
    "overhead_8, overhead_10, overhead_12, overhead_14": Unit(
        "none",
        "bits back: length of the message over the bound, less 1, with so many bits for each latent dimension",
    ),
    "initial_bits": Unit("bits", "random ones that the stack begins with, and ends with when all is read"),
    "write_seconds, read_seconds": Unit("seconds", "of all test images, with the compilation"),
    "beta_vae_score": Unit(
        "between 0 and 1, 1 over the number of factors at random",
        "accuracy of telling which factor pairs of images share, by the mean absolute differences of their codes",
    ),
    "factor_vae_score": Unit("likewise", "accuracy of telling which factor is fixed, by the unit that varies least"),
    "mig": Unit(
        "between 0 and 1",
        "information of the best unit on a factor less that of the second, over the entropy of the factor, mean over "
        "factors",
    ),
    "sap": Unit("between 0 and 1", "the same of the accuracy of a linear support vector machine on one unit"),
    "dci_disentanglement, dci_completeness": Unit(
        "between 0 and 1",
        "whether a unit matters for one factor, and a factor is in one unit, by the importances of boosted trees",
    ),
    "dci_informativeness": Unit("between 0 and 1", "accuracy of these trees on factors, mean over factors"),
    "exact_rate_nats, exact_distortion_nats": Unit(
        "nats per example",
        "of the best linear VAE on Gaussian data, in closed form: what its KL and its -log p(x|z) are",
    ),
    "digits, prior_digits, fitted_digits": Unit(
        "share of draws",
        "taken for some label with a probability of 0.9 by a classifier of the training images: images themselves,"
        " decoded draws of N(0, I), and of a Gaussian with the moments of the codes",
    ),
    "kinds, prior_kinds, fitted_kinds": Unit("count", "perplexity of the labels of these"),
    "nearest, prior_nearest, fitted_nearest": Unit("data units", "distance to the nearest training image, mean"),
    "frechet, prior_frechet, fitted_frechet": Unit(
        "squared data units",
        "Frechet distance of Gaussians with the moments of draws and of training images, in 20 principal components",
    ),
    "between_digits": Unit("share of pairs", "taken for a label like `digits`, halfway between codes of two labels"),
    "finds_posterior, finds_outputs, finds_samples, finds_mean, finds_untrained, finds_dead": Unit(
        "0 or 1",
        "whether the report on collapse finds: a collapsed posterior, identical outputs, identical samples, an error no"
        " better than that of the mean, or than before training, dead units",
    ),
    "collapsed_units": Unit("count", "dimensions of the posterior that are the prior, for nearly all test images"),
    "mutual_info_nats": Unit(
        "nats per image", "of image and code, of the training images; at most log of their number"
    ),
    "marginal_kl_nats": Unit("nats per image", "KL of the aggregate posterior to the prior, of the training images"),
    "train_bound_nats": Unit("nats per image", "the negative bound on them"),
    "train_recon_nats, train_kl_nats": Unit(
        "nats per image", "of the last epoch, mean over its steps; the KL of `collapse` is of the trained model"
    ),
}
